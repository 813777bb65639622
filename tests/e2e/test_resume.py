"""kill -9, SIGTERM and another number of processes: the run goes on as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from bart_cli.config.run import save_config
from bart_cli.training.checkpoint import list_checkpoints
from bart_cli.training.metrics import read_metrics
from tests.unit.training.test_runs import assert_equal_runs, pretrain_config, shards  # noqa: F401

STEPS, STOP = 30, 13
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1"}


def command(config: Path, run: Path, processes: int, *more: object) -> list[str]:
    return [
        *(sys.executable, "-m", "bart_cli", "pretrain", "--config", str(config)),
        *("--out", str(run), "--processes", str(processes), "--json", *map(str, more)),
    ]


def finish(config: Path, run: Path, processes: int, *more: object) -> str:
    result = subprocess.run(
        command(config, run, processes, *more),
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["outcome"] == "done"
    return result.stderr


def stop_after(config: Path, run: Path, processes: int, how: signal.Signals, *more: object) -> int:
    """Start the run and send a signal once a step past STOP is logged; the exit code."""
    process = subprocess.Popen(
        command(config, run, processes, *more),
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 200
    while process.poll() is None and time.monotonic() < deadline:
        if any(row["step"] >= STOP for row in read_metrics(run)):
            break
        time.sleep(0.01)
    assert process.poll() is None, "the run ended before it could be stopped"
    # To the whole group, as a terminal, `timeout` and SLURM do.
    os.killpg(process.pid, how)
    return process.wait(timeout=200)


@pytest.fixture
def config(shards: Path, tmp_path: Path) -> Path:  # noqa: F811
    return write_config(shards, tmp_path / "config.yaml", 0.1)


@pytest.fixture
def plain(shards: Path, tmp_path: Path) -> Path:  # noqa: F811
    return write_config(shards, tmp_path / "config.yaml", 0.0)


def write_config(shards: Path, path: Path, dropout: float) -> Path:  # noqa: F811
    # Noise is on; validation too, which must not disturb anything.
    settings = pretrain_config(
        shards, max_steps=STEPS, log_every=1, checkpoint_every=5, micro_batch=2, validate_every=10
    )
    model = settings.model.model_copy(update={"dropout": dropout, "attention_dropout": dropout})
    save_config(settings.model_copy(update={"model": model}), path)
    return path


Whole = Callable[[int, float], Path]


@pytest.fixture(scope="module")
def whole(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:  # noqa: F811
    """Undisturbed runs, each made once: number of processes and dropout -> run."""

    @cache
    def make(processes: int, dropout: float) -> Path:
        folder = tmp_path_factory.mktemp("whole")
        write_config(shards, folder / "config.yaml", dropout)
        finish(folder / "config.yaml", folder / "run", processes)
        return folder / "run"

    return make


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["kill-9", "SIGTERM"])
def test_a_stopped_run_goes_on_bit_for_bit(
    config: Path, tmp_path: Path, whole: Whole, processes: int, how: signal.Signals
) -> None:
    code = stop_after(config, tmp_path / "stopped", processes, how)
    assert code == (-9 if how == signal.SIGKILL else 0)
    left = list_checkpoints(tmp_path / "stopped")[-1]
    assert "30" not in left.name
    finish(config, tmp_path / "stopped", processes)
    assert_equal_runs(whole(processes, 0.1), tmp_path / "stopped")


def test_processes_that_load_data_leave_signals_to_the_run(config: Path, tmp_path: Path) -> None:
    config.write_text(config.read_text().replace("workers: 0", "workers: 1"))
    assert stop_after(config, tmp_path / "run", 1, signal.SIGTERM) == 0
    assert list_checkpoints(tmp_path / "run")


def test_divided_weights_train_alike_and_go_on_bit_for_bit(
    plain: Path,
    tmp_path: Path,
    whole: Whole,
) -> None:
    fsdp = ("--set", "training.sharding=fsdp")
    finish(plain, tmp_path / "divided", 2, *fsdp)
    assert stop_after(plain, tmp_path / "stopped", 2, signal.SIGTERM, *fsdp) == 0
    finish(plain, tmp_path / "stopped", 2, *fsdp)
    assert_equal_runs(tmp_path / "divided", tmp_path / "stopped")
    expected, divided = (
        [row["loss"] for row in read_metrics(run) if "loss" in row]
        for run in (whole(2, 0.0), tmp_path / "divided")
    )
    assert divided == pytest.approx(expected, rel=1e-4)


def test_divided_bf16_weights_follow_their_divided_masters(
    plain: Path,
    tmp_path: Path,
) -> None:
    half = [
        *("--max-steps", 6, "--precision", "bf16", "--set", "training.parameters=bf16"),
        *("--set", "optimizer.name=nvlamb", "--set", "training.half_precision_allreduce=true"),
    ]
    losses = []
    for sharding in ("none", "fsdp"):
        finish(plain, tmp_path / sharding, 2, *half, "--set", f"training.sharding={sharding}")
        rows = read_metrics(tmp_path / sharding)
        losses.append([row["loss"] for row in rows if "loss" in row])
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)
    assert losses[1][-1] < losses[1][0]


def test_a_full_disk_is_named_and_older_checkpoints_stay(config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert stop_after(config, run, 1, signal.SIGTERM) == 0
    before = list_checkpoints(run)
    weights = (before[-1] / "model/model.safetensors").stat().st_size

    def limit() -> None:  # as if the disk ended in the middle of the weights
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (weights // 2, weights // 2))

    result = subprocess.run(
        command(config, run, 1),
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        preexec_fn=limit,
        timeout=200,
        check=False,
    )
    assert result.returncode == 1, result.stderr
    assert f"error: cannot write {run}/" in result.stderr
    assert f"the run resumes from {before[-1]}" in result.stderr
    assert "Traceback" not in result.stderr
    assert list_checkpoints(run) == before
    finish(config, run, 1)  # room again: the same command goes on


def test_a_run_of_two_processes_goes_on_with_four(
    plain: Path,
    tmp_path: Path,
    whole: Whole,
) -> None:
    assert stop_after(plain, tmp_path / "mixed", 2, signal.SIGTERM) == 0
    finish(plain, tmp_path / "mixed", 4)
    expected, mixed = (
        [row for row in read_metrics(run) if "loss" in row]
        for run in (whole(2, 0.0), tmp_path / "mixed")
    )
    assert [row["samples"] for row in mixed] == [row["samples"] for row in expected]
    losses = [[row["loss"] for row in rows] for rows in (mixed, expected)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_worker_that_is_killed_is_started_again(
    config: Path, tmp_path: Path, whole: Whole
) -> None:
    import psutil

    run = tmp_path / "run"
    with subprocess.Popen(
        command(config, run, 2, "--max-restarts", 1),
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 200
        while not list_checkpoints(run) and time.monotonic() < deadline:
            time.sleep(0.01)
        workers = [
            child
            for child in psutil.Process(process.pid).children()
            if "bart_cli" in child.cmdline() and "RANK" in child.environ()
        ]
        assert len(workers) == 2
        workers[1].kill()
        out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert json.loads(out)["outcome"] == "done"
    assert_equal_runs(whole(2, 0.1), run)


def test_wrong_settings_are_said_once(config: Path, tmp_path: Path) -> None:
    result = subprocess.run(
        command(config, tmp_path / "run", 3),
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=200,
        check=False,
    )
    assert result.returncode == 2
    # 8 sequences do not divide among 3 processes: said once, for all.
    assert result.stderr.count("error:") == 1
    assert "training.global_batch=8 is no multiple of 3 ranks" in result.stderr
    assert "Traceback" not in result.stderr
