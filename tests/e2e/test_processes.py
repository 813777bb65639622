"""Several processes under torchrun: the same batches, the same losses, one voice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bart_cli.config.run import save_config
from bart_cli.training.metrics import read_metrics
from tests.unit.training.test_runs import (  # noqa: F401 - fixtures
    finetune_config,
    pairs,
    pretrain_config,
    shards,
)


def train(
    config: Path, run: Path, processes: int, task: str = "pretrain", *more: str
) -> subprocess.CompletedProcess[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    launcher = launcher if processes > 1 else []
    arguments = ["-m", "bart_cli", task, "--config", str(config), "--out", str(run), "--json"]
    return subprocess.run(
        [sys.executable, *launcher, *arguments, *more],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=240,
        check=False,
    )


def test_two_and_four_processes_have_the_losses_of_one(
    shards: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    config = pretrain_config(shards, max_steps=20, log_every=1, micro_batch=2)
    plain = config.model.model_copy(update={"dropout": 0.0, "attention_dropout": 0.0})
    save_config(config.model_copy(update={"model": plain}), tmp_path / "config.yaml")
    losses = {}
    for processes in (1, 2, 4):
        run = tmp_path / str(processes)
        result = train(tmp_path / "config.yaml", run, processes)
        assert result.returncode == 0, result.stderr
        assert json.loads(result.stdout)["step"] == 20  # one document: only rank 0 speaks
        losses[processes] = [row["loss"] for row in read_metrics(run)]
    for processes in (2, 4):
        assert losses[processes] == pytest.approx(losses[1], rel=1e-4)


def test_gradients_may_travel_in_half_precision(
    shards: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    config = pretrain_config(shards, max_steps=4, half_precision_allreduce=True)
    save_config(config, tmp_path / "config.yaml")
    result = train(tmp_path / "config.yaml", tmp_path / "run", 2)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["outcome"] == "done"


def test_generated_summaries_are_shared_among_processes_and_score_alike(
    pairs: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    config = finetune_config(
        pairs, training={"max_steps": 12, "validate_every": 6, "select_by": "rouge1"}
    )
    plain = config.model.model_copy(update={"dropout": 0.0, "attention_dropout": 0.0})
    save_config(config.model_copy(update={"model": plain}), tmp_path / "config.yaml")
    scores = {}
    for processes in (1, 2):
        run = tmp_path / str(processes)
        result = train(tmp_path / "config.yaml", run, processes, "finetune", "--no-evaluate")
        assert result.returncode == 0, result.stderr
        scores[processes] = [row["rouge1"] for row in read_metrics(run) if "rouge1" in row]
    assert len(scores[1]) == 2
    assert all(scores[1])
    assert scores[2] == pytest.approx(scores[1], abs=1e-9)
