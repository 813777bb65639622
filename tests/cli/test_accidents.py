"""Signals and kills, through real processes: one line, the right exit code, no process left."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from bart_cli.config.run import save_config
from bart_cli.progress import Reporter
from bart_cli.runtime.locks import locked_folder
from bart_cli.training.history import read_run
from tests.cli.test_preprocess_processes import command as preprocess
from tests.cli.test_preprocess_processes import corpus  # noqa: F401 - a fixture
from tests.command import Command, assert_gone, bart, decoded, family, start
from tests.unit.training.test_runs import pretrain_config, shards  # noqa: F401 - a fixture


def pretrain(config: Path, run: Path, processes: int) -> list[object]:
    return ["pretrain", "--config", config, "--out", run, "--processes", processes]


def assert_one_line(command: Command, how: signal.Signals) -> None:
    done = decoded(command.wait())
    lines = done.stderr.splitlines()
    said = [line for line in lines if not line.startswith(("text:", "duplicates:"))]
    assert said == [f"error: {'interrupted' if how == signal.SIGINT else 'terminated'}"]
    assert done.returncode == 128 + how


def test_preprocessing_ends_with_its_workers(
    corpus: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    reports = tmp_path / "out" / ".work" / "reports"
    command = start(*preprocess(corpus, tmp_path / "out")).until(
        lambda: any(reports.glob("*.json"))
    )
    children = family(command)
    command.signal(signal.SIGINT)  # to its process group, like a terminal
    assert_one_line(command, signal.SIGINT)
    assert_gone(children)


@pytest.fixture
def config(shards: Path, tmp_path: Path) -> Path:  # noqa: F811
    settings = pretrain_config(shards, max_steps=10**6, log_every=1, micro_batch=2)
    data = settings.data.model_copy(update={"workers": 1})
    save_config(settings.model_copy(update={"data": data}), tmp_path / "config.yaml")
    return tmp_path / "config.yaml"


def test_a_launcher_stopped_before_the_first_step_says_so(config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = start(*pretrain(config, run, 2)).until(lambda: (run / ".lock").exists())
    children = family(command)
    os.kill(command.pid, signal.SIGTERM)
    assert_one_line(command, signal.SIGTERM)
    assert_gone(children)


def test_a_run_is_exclusive_and_its_processes_end_with_it(config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = start(*pretrain(config, run, 2)).until(lambda: (run / "metrics.jsonl").exists())
    second = bart("pretrain", "--config", config, "--out", run)
    assert second.returncode == 2
    assert second.stderr.startswith(f"error: {run} is in use by another bart command (process ")
    summary, _ = read_run(run)
    assert summary.state == "running"
    assert summary.epoch
    assert summary.ends
    children = family(command)
    assert len(children) >= 4  # ranks, each with a data loader process
    os.kill(command.pid, signal.SIGKILL)
    command.wait()
    assert_gone(children)
    assert read_run(run)[0].state == "not finished"
    with locked_folder(run, Reporter()):
        assert read_run(run)[0].state == "running"
