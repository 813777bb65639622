"""Several processes: the same batches, the same losses, output of one rank."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bart_cli.config.run import save_config
from bart_cli.training.metrics import read_metrics
from tests.command import bart, python
from tests.e2e.runs import STEPS, finish_ranks, losses, pretrain
from tests.unit.training.test_runs import finetune_config, pairs  # noqa: F401 - a fixture


def test_two_processes_of_torchrun_have_the_losses_of_one(
    plain: Path, tmp_path: Path, whole_plain: Path
) -> None:
    torchrun = "from torch.distributed.run import main; main()"
    result = python(
        torchrun,
        *("--standalone", "--nproc-per-node=2", "-m", "bart_cli"),
        *pretrain(plain, tmp_path / "run"),
        OMP_NUM_THREADS="1",
        PYTHONPROFILEIMPORTTIME="1",
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["step"] == STEPS  # one document: only rank 0 prints
    assert losses(tmp_path / "run") == pytest.approx(losses(whole_plain), rel=1e-4)
    # Every rank would spend three seconds on these.
    imported = set(re.findall(r"^import time:.*\| +(\S+)$", result.stderr, re.MULTILINE))
    assert "bart_cli.training.loop" in imported
    assert imported.isdisjoint({"torch._dynamo", "pandas"})


def test_processes_share_the_decoding_of_validation_and_get_the_same_scores(
    pairs: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    config = finetune_config(
        pairs, training={"max_steps": 12, "validate_every": 6, "select_by": "rouge1"}
    )
    plain = config.model.model_copy(update={"dropout": 0.0, "attention_dropout": 0.0})
    save_config(config.model_copy(update={"model": plain}), tmp_path / "config.yaml")
    words = ["finetune", "--config", tmp_path / "config.yaml", "--no-evaluate", "--json", "--out"]
    result = bart(*words, tmp_path / "1")
    assert result.returncode == 0, result.stderr
    finish_ranks(2, *words, tmp_path / "2")
    alone, shared = (
        [row["rouge1"] for row in read_metrics(tmp_path / name) if "rouge1" in row]
        for name in ("1", "2")
    )
    assert len(alone) == 2
    assert all(alone)
    assert shared == pytest.approx(alone, abs=1e-9)
