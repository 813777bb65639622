"""A run resumes as if uninterrupted after kill -9, SIGTERM and on more processes."""

from __future__ import annotations

import json
import resource
import signal
from pathlib import Path

import psutil
import pytest

from bart_cli.training.checkpoint import list_checkpoints
from bart_cli.training.metrics import read_metrics
from tests.command import bart, decoded, start
from tests.e2e.runs import (
    STEPS,
    STOP,
    finish,
    finish_ranks,
    losses,
    pretrain,
    stop_after,
    wait_for_step,
)
from tests.unit.training.test_runs import assert_equal_runs

# Sharded steps of small models take time for each weight.
SHALLOW = ("--set", "model.encoder_layers=1", "--set", "model.decoder_layers=1")


def test_a_killed_run_survives_a_full_disk_and_ends_bit_for_bit(
    noisy: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert stop_after(noisy, run, signal.SIGKILL) == -signal.SIGKILL
    before = list_checkpoints(run)
    assert str(STEPS) not in before[-1].name
    size = (before[-1] / "model/model.safetensors").stat().st_size // 2
    # Like a disk that gets full while the weights are written: Python ignores SIGXFSZ.
    command = start(*pretrain(noisy, run))
    resource.prlimit(command.pid, resource.RLIMIT_FSIZE, (size, size))
    result = decoded(command.wait())
    assert result.returncode == 1, result.stderr
    assert f"error: cannot write {run}/" in result.stderr
    assert f"the run resumes from {before[-1]}" in result.stderr
    assert "Traceback" not in result.stderr
    assert list_checkpoints(run) == before
    finish(noisy, run)  # space is free again
    finish(noisy, tmp_path / "whole")
    assert_equal_runs(tmp_path / "whole", run)


def test_a_killed_worker_is_restarted_and_sigterm_stops_all(noisy: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = pretrain(noisy, run, "--processes", 2, "--max-restarts", 1)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    launcher = start(*words, "--resume", "none", TMPDIR=str(temporary))
    wait_for_step(run, STOP, launcher)
    workers = [
        child
        for child in psutil.Process(launcher.pid).children()
        if "bart_cli" in child.cmdline() and "RANK" in child.environ()
    ]
    assert len(workers) == 2
    workers[1].kill()
    workers[1].wait()
    wait_for_step(run, STOP + 3, launcher)
    launcher.signal(signal.SIGTERM)
    result = decoded(launcher.wait())
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["outcome"] == "stopped by SIGTERM"
    assert str(STEPS) not in list_checkpoints(run)[-1].name
    assert list(temporary.iterdir()) == []
    for place in (run, tmp_path / "whole"):
        assert json.loads(finish_ranks(2, *pretrain(noisy, place)))["outcome"] == "done"
    assert_equal_runs(tmp_path / "whole", run)


def test_processes_that_load_data_leave_signals_to_the_run(noisy: Path, tmp_path: Path) -> None:
    workers = ("--set", "data.workers=1")
    assert stop_after(noisy, tmp_path / "run", signal.SIGTERM, *workers) == 0
    assert list_checkpoints(tmp_path / "run")


def test_sharded_training_gives_the_same_results_and_resumes_bit_for_bit(
    plain: Path, tmp_path: Path
) -> None:
    few = ("--max-steps", 8, *SHALLOW)
    finish(plain, tmp_path / "whole", *few)
    fsdp = (*few, "--set", "training.sharding=fsdp")
    finish_ranks(2, *pretrain(plain, tmp_path / "divided", *fsdp))
    stopped = stop_after(plain, tmp_path / "stopped", signal.SIGTERM, *fsdp, processes=2, step=4)
    assert stopped == 0
    finish_ranks(2, *pretrain(plain, tmp_path / "stopped", *fsdp))
    assert_equal_runs(tmp_path / "divided", tmp_path / "stopped")
    assert losses(tmp_path / "divided") == pytest.approx(losses(tmp_path / "whole"), rel=1e-4)


def test_sharded_bf16_weights_follow_their_sharded_master_weights(
    plain: Path, tmp_path: Path
) -> None:
    half = [
        *("--max-steps", 5, "--precision", "bf16", "--set", "training.parameters=bf16", *SHALLOW),
        *("--set", "optimizer.name=nvlamb", "--set", "training.half_precision_allreduce=true"),
    ]
    for sharding in ("none", "fsdp"):
        sharded = [*half, "--set", f"training.sharding={sharding}"]
        finish_ranks(2, *pretrain(plain, tmp_path / sharding, *sharded))
    whole, divided = losses(tmp_path / "none"), losses(tmp_path / "fsdp")
    assert divided == pytest.approx(whole, rel=1e-2)
    assert divided[-1] < divided[0]


def test_a_run_of_one_process_resumes_with_four(
    plain: Path, tmp_path: Path, whole_plain: Path
) -> None:
    run = tmp_path / "mixed"
    assert stop_after(plain, run, signal.SIGTERM) == 0
    finish_ranks(4, *pretrain(plain, run))
    expected, mixed = (
        [row for row in read_metrics(run) if "loss" in row] for run in (whole_plain, run)
    )
    assert [row["samples"] for row in mixed] == [row["samples"] for row in expected]
    assert losses(run) == pytest.approx(losses(whole_plain), rel=1e-4)


def test_invalid_settings_are_reported_once(noisy: Path, tmp_path: Path) -> None:
    odd = ("--global-batch", 9, "--micro-batch", 1)
    result = bart(*pretrain(noisy, tmp_path / "run", "--processes", 2, *odd))
    assert result.returncode == 2
    # 9 sequences are not divisible by 2 processes; reported once for both.
    assert result.stderr.count("error:") == 1
    assert "training.global_batch=9 is not divisible by the number of ranks (2)" in result.stderr
    assert "Traceback" not in result.stderr
