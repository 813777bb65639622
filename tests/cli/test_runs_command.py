"""`bart runs` as a real command, on real runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bart_cli.cli.runs import _rows
from bart_cli.progress import Reporter
from bart_cli.training.history import read_run
from bart_cli.training.pretrain import run_pretrain
from tests.command import bart
from tests.unit.training.test_runs import pretrain_config, shards  # noqa: F401


@pytest.fixture(scope="module")
def runs(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    folder = tmp_path_factory.mktemp("runs")
    for name, changes in (
        ("short", {"epochs": 0.5, "validate_every": 2}),
        ("stopped", {"max_steps": 6, "time_limit": 1e-9}),
    ):
        run_pretrain(pretrain_config(shards, **changes), folder / name, reporter=Reporter())
    return folder


def test_runs_are_listed_with_their_state(runs: Path) -> None:
    short, stopped = json.loads(bart("runs", "list", runs, "--json").stdout)
    assert (short["state"], short["step"], short["max_steps"]) == ("done", 4, 4)
    assert short["best_validation_loss"] > 0
    assert (stopped["state"], stopped["step"]) == ("not finished", 1)
    assert stopped["checkpoints"] == ["step-00000001"]
    damaged = runs / "damaged"
    shutil.copytree(runs / "stopped", damaged)
    (damaged / "done.json").write_bytes(b'{"outcome": "caf\xe9"}')  # not UTF-8
    text = bart("runs", "list", runs)
    shutil.rmtree(damaged)
    assert text.returncode == 1
    assert text.stderr.startswith(f"error: {damaged / 'done.json'} is damaged: ")
    for words in ("4/4", "/0.5", "not finished"):
        assert words in text.stdout


def test_a_run_is_shown_and_runs_are_compared(runs: Path) -> None:
    assert "4 of 4" in bart("runs", "show", runs / "short").stdout
    content = json.loads(bart("runs", "compare", runs / "short", runs / "stopped", "--json").stdout)
    assert content["settings"]["training.max_steps"] == [4, 6]
    assert "data.path" not in content["settings"]
    assert "training.max_steps" in bart("runs", "compare", runs / "short", runs / "stopped").stdout


def test_a_run_without_a_log_line_shows_one_dash(runs: Path, tmp_path: Path) -> None:
    shutil.copy(runs / "short/config.yaml", tmp_path)
    assert dict(_rows(read_run(tmp_path)[0]))["loss"] == "-"


def test_a_run_is_written_to_a_page(runs: Path) -> None:
    result = bart("runs", "watch", runs / "short")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        (runs / "short/watch.html").as_uri(),
        "done at step 4 of 4",
    ]
    assert "validation loss" in (runs / "short/watch.html").read_text()


def test_folders_that_are_not_runs_are_reported(tmp_path: Path) -> None:
    for arguments in (
        ("list", tmp_path),
        ("show", tmp_path),
        ("watch", tmp_path),
        ("list", tmp_path / "none"),
    ):
        result = bart("runs", *arguments)
        assert result.returncode == 2
        assert str(tmp_path) in result.stderr
        assert "Traceback" not in result.stderr
