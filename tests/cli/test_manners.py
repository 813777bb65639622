"""Behavior in terminals and pipes: help, suggestions, completion, color."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from bart_cli.cli.app import COMMANDS, _refuse_empty, _usage_error, build_app
from bart_cli.errors import UsageError
from tests.cli.test_commands import BART, bart
from tests.conftest import SENTENCES

COLOUR = re.compile(rb"\x1b\[[0-9;]*3[0-7]")
SILENT = {"launch slurm", "runs watch", "serve"}  # a script, a page, a server


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yield every command that is not a group, with its name."""
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from leaves(inner, (*path, name))
    else:
        yield " ".join(path), command


ALL = dict(leaves(typer.main.get_command(build_app(None, everything=True))))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join(" ".join(SENTENCES) for _ in range(30)))
    return path


@pytest.mark.parametrize("name", ALL)
def test_every_option_of_every_command_is_explained(name: str) -> None:
    for parameter in ALL[name].params:
        if parameter.name != "help":
            assert getattr(parameter, "help", None), f"{name}: {parameter.opts}"
    assert ALL[name].help, name


def test_every_command_with_results_has_json_output() -> None:
    without = {name for name, c in ALL.items() if not any("--json" in p.opts for p in c.params)}
    assert without == SILENT


def test_the_same_option_never_is_a_flag_here_and_a_value_there() -> None:
    kinds: dict[str, set[bool]] = {}
    for command in ALL.values():
        for parameter in command.params:
            for name in parameter.opts:
                if name.startswith("--"):
                    kinds.setdefault(name, set()).add(bool(getattr(parameter, "is_flag", False)))
    assert [name for name, found in kinds.items() if len(found) > 1] == []


def test_help_is_instant_because_nothing_heavy_is_imported() -> None:
    for arguments in (["--help"], ["--version"]):
        result = subprocess.run(
            [sys.executable, "-X", "importtime", *BART[1:], *arguments],
            capture_output=True,
            text=True,
            check=True,
        )
        imported = {line.split("|")[-1].strip() for line in result.stderr.splitlines()}
        assert not imported & {"torch", "numpy", "pydantic", "pyarrow", "transformers"}


def test_an_unset_variable_is_not_the_current_folder() -> None:
    """Path("") is the current folder, so that `--out "$RUN"` would write there."""
    for words in (["pretrain", "--out", ""], ["pretrain", "--out="], ["summarize", ""]):
        with pytest.raises(UsageError, match=r"^(the argument after|--out= has no)"):
            _refuse_empty(words)
    _refuse_empty(["pretrain", "--set", "model.prefix=", "--set=model.prefix="])


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        ("sumarize", "summarize"),
        ("download wikpedia", "wikipedia"),
        ("benchmark trian", "train"),
        ("summarize --bems 3 x.txt", "--beams"),
        ("pretrain --max-step 3", "--max-steps"),
        ("--versoin", "--version"),
    ],
)
def test_a_typo_gets_a_suggestion(arguments: str, meant: str) -> None:
    result = bart(*arguments.split())
    assert result.returncode == 2
    assert f"Did you mean '{meant}'?" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (
            "export --model x",
            r"Usage: bart export \[OPTIONS\] .?MODEL.?  See `bart export --help`\.",
        ),
        ("benchmark data --text x", r"See `bart benchmark data --help`\."),
    ],
)
def test_an_option_without_a_close_one_gets_the_usage(arguments: str, hint: str) -> None:
    words = arguments.split()
    with pytest.raises(Exception, match="No such option") as caught:
        build_app(words[0])(args=words, prog_name="bart", standalone_mode=False)
    found = _usage_error(caught.value).hint
    assert found
    assert re.fullmatch(hint, found)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ("--micro-batch 8 --global-batch 4", "Change --micro-batch or --global-batch."),
        ("--set schedule.cycles=2", "Change --set schedule.cycles=… or --set schedule.name=…."),
    ],
)
def test_settings_that_contradict_each_other_are_named_by_their_options(
    arguments: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        build_app("pretrain")(args=["pretrain", *arguments.split()], standalone_mode=False)
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["pretr"], ["pretrain"]),
        (["benchmark", "inf"], ["inference"]),
        (["pretrain", "--preset", "tiny"], ["tiny-cpu", "tiny-cpu-finetune", "tiny-cpu-model"]),
        (["summarize", "--no-re"], ["--no-repeat-ngram"]),
    ],
)
def test_the_shell_completes_commands_options_and_presets(
    tmp_path: Path, words: list[str], expected: list[str]
) -> None:
    script = tmp_path / "bart"
    script.write_text(f'#!/bin/bash\nexec {sys.executable} -m bart_cli "$@"\n')
    script.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    here = str(Path(__file__).parents[2])
    environment = os.environ | {"HOME": str(tmp_path), "PATH": path, "PYTHONPATH": here}
    line = " ".join(f"'{word}'" for word in words)
    commands = (
        "bart --install-completion bash > /dev/null; source ~/.bash_completions/bart.sh; "
        f"COMP_WORDS=(bart {line}); COMP_CWORD={len(words)}; _bart_completion bart; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    result = subprocess.run(
        ["bash", "-c", commands],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == expected, result.stderr


@pytest.mark.parametrize("before", [True, False])
def test_quiet_prints_only_the_result(text: Path, tmp_path: Path, before: bool) -> None:
    rest = ["tokenizer", "train", text, "--vocab-size", 300, "--out", tmp_path / "t"]
    loud = bart(*rest)
    assert "train the tokenizer" in loud.stderr
    quiet = bart(*(["--quiet", *rest] if before else [*rest, "-q"]))
    assert quiet.returncode == 0
    assert quiet.stderr == ""
    assert quiet.stdout == loud.stdout


def test_verbose_shows_where_an_error_came_from() -> None:
    assert "Traceback" not in bart("presets", "show", "nothing").stderr
    shown = bart("presets", "show", "nothing", "--verbose").stderr
    assert "Traceback" in shown
    assert "error: no preset 'nothing'" in shown


def on_a_terminal(*arguments: str, **environment: str) -> bytes:
    """Run the command in a terminal and return what it writes, both streams."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [*BART, *arguments],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={k: v for k, v in os.environ.items() if k != "NO_COLOR"}
        | {"TERM": "xterm-256color"}
        | environment,
    )
    os.close(terminal)
    written = b""
    while True:
        try:
            chunk = os.read(controller, 65536)
        except OSError:  # the other end is closed
            break
        if not chunk:
            break
        written += chunk
    process.wait()
    os.close(controller)
    return written


@pytest.mark.parametrize("arguments", [("--help",), ("presets", "show", "nothing")])
def test_colors_are_only_for_terminals_that_support_them(arguments: tuple[str, ...]) -> None:
    assert COLOUR.search(on_a_terminal(*arguments))
    assert not COLOUR.search(on_a_terminal(*arguments, NO_COLOR="1"))
    piped = bart(*arguments)
    assert "\x1b" not in piped.stdout + piped.stderr


def test_the_list_of_commands_is_complete() -> None:
    modules = {path.stem for path in (Path(__file__).parents[2] / "bart_cli" / "cli").glob("*.py")}
    own = {"__init__", "app", "console", "groups", "options", "generation", "training"}
    assert set(COMMANDS) == modules - own
