"""Run every block of commands in README and docs, or parse it if a comment says why."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import shutil
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from bart_cli.cli.app import COMMANDS, build_app
from bart_cli.config.generation import GenerationConfig
from bart_cli.config.presets import load_preset
from bart_cli.model.bart import Bart
from bart_cli.tokenizer import Tokenizer
from tests.cli.test_download_common_crawl import crawl  # noqa: F401
from tests.cli.test_download_corpora import hub  # noqa: F401
from tests.conftest import SENTENCES, save_model, tiny_model_config
from tests.docs.pages import PAGES, ROOT, Block, commands, read_blocks
from tests.docs.stage import Stage, environment, write_languages
from tests.ranks import measured_here
from tests.servers.hub import serve_hub
from tests.servers.web import serve_files

TOUR = "docs/tour.md"
WORD = re.compile(r"[^\W\d_]{3,}")
PARSER: Any = typer.main.get_command(build_app(None, everything=True))
EXAMPLE = "<!-- what comes out differs -->\n"


@pytest.fixture(scope="module")
def stage(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_tokenizer: Tokenizer,
    hub: Path,  # noqa: F811
    crawl: Path,  # noqa: F811
) -> Iterator[Stage]:
    """Run the tour from top to bottom, and return its folder."""
    folder = tmp_path_factory.mktemp("pages")
    torch.manual_seed(0)
    sizes = {"vocab_size": tiny_tokenizer.vocab_size, "max_position_embeddings": 1024}
    model = Bart(tiny_model_config(**sizes, init_std=0.3))
    decoding = GenerationConfig(max_length=12)
    for place in (hub / "facebook/bart-large-cnn", folder / "demo/finetuned-pre-trained/model"):
        save_model(place, model, tiny_tokenizer, decoding)
    for name in ("bart-base", "bart-large"):
        tiny_tokenizer.save(hub / "facebook" / name)
    for name in ("FILE.txt", "article.txt"):
        (folder / name).write_text(" ".join(SENTENCES), encoding="utf-8")
    write_languages(folder)
    theirs = "".join(json.dumps({"prediction": text}) + "\n" for text in SENTENCES[:3])
    (folder / "predictions.jsonl").write_text(theirs, encoding="utf-8")
    (folder / "cache").mkdir()
    with (
        pytest.MonkeyPatch.context() as patch,
        serve_hub(hub) as address,
        serve_files(crawl) as web,
    ):
        environment(patch, address, folder / "cache")
        patch.setattr("bart_cli.benchmark.run.processes_of", measured_here)
        patch.chdir(folder)
        built = Stage(folder, patch, web.url)
        run_page(built, TOUR)
        yield built


def run_page(stage: Stage, page: str) -> None:
    """Run the blocks of a page in order, and compare the shown output with the real output."""
    stage.patch.chdir(stage.folder)
    source = (ROOT / page).read_text(encoding="utf-8")
    printed = ""
    for block in read_blocks(page):
        if block.language == "bash" and block.reason is None:
            printed, given = "", ""
            recipe = block.text if "text-ru" in block.text else ""
            # "For German, replace `ru` by `de`."
            for command in commands(block.text + re.sub(r"\bru\b", "de", recipe)):
                out = stage.run(command, given if command.from_pipe else "")
                given = out if command.out == "|" else ""
                printed += Path(command.out).read_text() if command.out not in (None, "|") else out
        elif block.language == "python" and page in (TOUR, "README.md"):
            exec(compile(block.text, f"{page}:{block.line}", "exec"), {})
        elif block.language == "text" and f"{EXAMPLE}```text\n{block.text}" not in source:
            made_up = lines_made_up(block.text, printed)
            assert not made_up, f"{page}:{block.line}: not in the real output: {made_up}"


def lines_made_up(shown: str, printed: str) -> list[str]:
    """Return lines with a word that was not printed. Numbers differ, because the data is small."""
    known = set(WORD.findall(printed))
    return [line for line in shown.splitlines() if not known.issuperset(WORD.findall(line))]


def test_the_tour_runs_from_top_to_bottom(stage: Stage) -> None:
    assert (stage.folder / "runs/finetuned/model/model.safetensors").is_file()
    assert (stage.folder / "runs/two/done.json").is_file()


@pytest.mark.parametrize("page", [page for page in PAGES if page != TOUR])
def test_the_commands_of_a_page_run_after_the_tour(stage: Stage, tmp_path: Path, page: str) -> None:
    folder = tmp_path / "page"
    shutil.copytree(stage.folder, folder)
    run_page(replace(stage, folder=folder, done=dict(stage.done)), page)
    if page == "docs/recipes.md":
        for language in ("ru", "de"):
            for name in ("final-evaluation", "evaluation-test"):
                file = folder / f"runs/finetuned-{language}" / name / "metrics.json"
                metrics = json.loads(file.read_text())
                assert metrics["rouge"]["rouge1"] > 0
                assert metrics["settings"]["tokenizer"] == "unicode"
                assert metrics["settings"]["language"] == language


def test_every_command_has_an_example_in_the_tour() -> None:
    blocks = [b for b in read_blocks(TOUR) if b.language == "bash"]
    run = [command.words for block in blocks for command in commands(block.text)]
    shown = {words[1] for words in run if Path(words[0]).name == "bart"}
    assert shown == set(COMMANDS)


def parsed_only() -> list[Block]:
    return [block for page in PAGES for block in read_blocks(page) if block.reason is not None]


@pytest.mark.parametrize("block", parsed_only(), ids=lambda block: f"{block.page}:{block.line}")
def test_commands_that_are_not_run_are_parsed(block: Block) -> None:
    for command in commands(block.text):
        words = list(command.words)
        for place, word in enumerate(words[:-1]):
            if Path(word).name == "bart" and words[place + 1] in COMMANDS:
                parse(words[place + 1 :])


def parse(words: list[str]) -> None:
    """Raise for a sub-command, an option, a value or a preset that does not exist."""
    command, name = PARSER, "bart"
    while hasattr(command, "commands"):
        name, *words = words
        command = command.commands[name]
    context = command.make_context(name, list(words))
    preset = context.params.get("preset") or context.params.get("presets") or []
    for chosen in [preset] if isinstance(preset, str) else preset:
        task = load_preset(chosen).get("task")
    if name == "slurm":  # the rest are options of the command of the preset
        parse([str(task), *context.args])


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("pretrain --presett tiny-cpu", "presett"),
        ("pretrain --preset tiny-cpo", "tiny-cpo"),
        ("launch slurm --preset dgxa100-40node-phase1 --dat x", "--dat"),
        ("pretrian", "pretrian"),
        ("pretrain --max-steps few", "valid integer"),
    ],
)
def test_the_check_of_parsed_commands_can_fail(words: str, error: str) -> None:
    with pytest.raises(Exception, match=error):
        parse(words.split())


def script_calls() -> list[list[str]]:
    """Return the calls of scripts in `benchmarks/`, in blocks and in sentences."""
    text = "\n".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
    calls = re.findall(r"python (benchmarks/[^`\n]+)", text.replace("\\\n", " "))
    return [shlex.split(call) for call in calls]


def parse_call(words: list[str], patch: pytest.MonkeyPatch) -> object:
    """Run a script until it has parsed its arguments, and return its exit code."""
    parse_args = ArgumentParser.parse_args

    def end(parser: ArgumentParser) -> None:
        parse_args(parser)
        raise SystemExit

    patch.setattr(ArgumentParser, "parse_args", end)
    patch.setattr(sys, "argv", words)
    patch.syspath_prepend(ROOT / "benchmarks")
    patch.setenv("TOKENIZERS_PARALLELISM", "false")  # a script sets it, too
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / words[0]), run_name="__main__")
    return ended.value.code


@pytest.mark.parametrize("words", script_calls(), ids=" ".join)
def test_scripts_accept_their_arguments(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if words[0] == "benchmarks/preprocessing.py":
        pytest.importorskip("nltk")
    assert parse_call(words, monkeypatch) is None


def test_the_check_of_scripts_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_call(["benchmarks/loader.py", "--arms"], monkeypatch) == 2


def test_output_that_no_command_printed_is_detected() -> None:
    printed = "40 documents, 312 sentences\n600 entries written to data/tokenizer\n"
    assert lines_made_up("38,239 documents, 318,339 sentences\n", printed) == []
    assert lines_made_up("38,239 documents, 5 paragraphs", printed) == [
        "38,239 documents, 5 paragraphs"
    ]


def test_a_program_that_is_not_run_needs_a_reason(stage: Stage) -> None:
    with pytest.raises(AssertionError, match="only parsed"):
        stage.run(commands("srun job.sh")[0], "")


def test_every_link_between_pages_is_valid() -> None:
    for page in [*PAGES, "CONTRIBUTING.md"]:
        text = (ROOT / page).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
            if not target.startswith("http"):
                assert (ROOT / page).parent.joinpath(target).exists(), f"{page}: {target}"


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    for page in PAGES:
        if page.startswith("docs/") and page != "docs/README.md":
            assert f"]({Path(page).name})" in index, page
