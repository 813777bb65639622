"""A dry run tells what the real run then takes, fails as that would, and writes nothing."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from bart_cli.config.training import ScheduleConfig
from bart_cli.errors import BartError, UsageError
from bart_cli.model.formats import load_model
from bart_cli.progress import Reporter
from bart_cli.runtime.locks import locked_folder
from bart_cli.training.checkpoint import list_checkpoints
from bart_cli.training.finetune import run_finetune
from bart_cli.training.metrics import read_metrics
from bart_cli.training.pretrain import run_pretrain
from bart_cli.training.run import RunResult
from tests.unit.training.test_runs import (
    finetune_config,
    pairs,  # noqa: F401
    pretrain_config,
    shards,  # noqa: F401
)

pytestmark = pytest.mark.slow


def content(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in (folder, *folder.rglob("*"))}


def size(*files: Path) -> int:
    return sum(path.stat().st_size for path in files)


def estimate_of(result: RunResult) -> SimpleNamespace:
    assert result.estimate is not None
    return SimpleNamespace(**result.estimate)


def test_a_dry_run_foretells_the_run_and_leaves_no_trace(
    shards: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    settings = {"epochs": 1.2, "checkpoint_every": 3, "validate_every": "epoch", "log_every": 1}
    config, run = pretrain_config(shards, **settings), tmp_path / "a" / "run"
    before = content(tmp_path)
    told = estimate_of(run_pretrain(config, run, dry_run=True, reporter=Reporter()))
    assert content(tmp_path) == before

    result = run_pretrain(config, run, reporter=Reporter())
    last = [row for row in read_metrics(run) if "epoch" in row][-1]
    assert told.max_steps == result.step
    assert told.epochs == pytest.approx(last["epoch"])
    model = load_model(run).model
    assert told.parameters == sum(p.numel() for p in model.parameters())
    checkpoints = list_checkpoints(run)
    newest = checkpoints[-1]
    files = (newest / "model" / "model.safetensors", newest / "optimizer.safetensors")
    assert told.checkpoint_bytes == pytest.approx(size(*files), rel=0.1)
    assert told.checkpoints >= len(checkpoints)
    assert told.disk_needed >= 0.9 * size(*run.rglob("*.safetensors"))
    assert told.passes == told.measured_passes == 3
    assert math.isclose(told.hours, told.max_steps * told.step_seconds / 3600)

    before = content(tmp_path)
    finished = run_pretrain(config, run, dry_run=True, reporter=Reporter())
    assert (finished.outcome, finished.estimate) == ("done", None)
    other = pretrain_config(shards, **settings, seed=1)
    with pytest.raises(UsageError, match="holds a run with other settings"):
        run_pretrain(other, run, dry_run=True, reporter=Reporter())
    longer = pretrain_config(shards, **settings | {"epochs": 2})
    more = estimate_of(run_pretrain(longer, run, dry_run=True, reporter=Reporter()))
    assert more.first_step == result.step
    assert math.isclose(more.hours, (more.max_steps - result.step) * more.step_seconds / 3600)
    assert content(tmp_path) == before


def test_a_dry_run_of_pairs_counts_them_and_fails_where_the_run_would(
    pairs: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    config = finetune_config(pairs, training={"epochs": 3, "freeze_embeddings": True})
    run = tmp_path / "run"
    told = estimate_of(run_finetune(config, run, dry_run=True, reporter=Reporter()))
    assert (told.samples_per_epoch, told.max_steps, told.epochs) == (4, 2, 4.0)
    assert told.trained_parameters < told.parameters
    # A step of 8 holds each of the 4 pairs twice.
    assert told.tokens_per_epoch is not None
    assert told.tokens_per_second * told.step_seconds == pytest.approx(2 * told.tokens_per_epoch)
    assert not run.exists()

    def refused(error: type[BartError], match: str) -> None:
        with pytest.raises(error, match=match):
            run_finetune(config, run, dry_run=True, reporter=Reporter())

    schedule = config.schedule
    config = config.model_copy(update={"schedule": ScheduleConfig(warmup_steps=3)})
    refused(UsageError, "warmup_steps=3 exceeds training.max_steps=2, the length of 3 epochs")
    config = config.model_copy(update={"schedule": schedule})
    with locked_folder(run, Reporter()):
        refused(UsageError, "in use by another bart command")
    run.write_text("")
    refused(UsageError, "is a file; expected a folder")
    run = run / "below"
    refused(BartError, "Not a directory")
