"""Read run folders: their settings, progress and results."""

import statistics
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from bart_cli.config.presets import flatten, read_yaml
from bart_cli.errors import UsageError
from bart_cli.runtime.locks import holder
from bart_cli.training.checkpoint import list_checkpoints, step_of
from bart_cli.training.metrics import Row, first_and_last_loss, read_metrics
from bart_cli.training.resume import read_outcome

RECENT = 20  # rows of the log that give the current speed


@dataclass(frozen=True)
class RunSummary:
    """Summary of a run. Speeds are medians over the log."""

    run: str
    task: str
    state: str  # the outcome, "running" or "not finished"
    step: int
    max_steps: int
    epoch: float | None  # passes over the data so far
    epochs: float | None  # passes in total, if the length of the run was given so
    ends: str | None  # estimated end of a running run (local time, ISO 8601)
    first_loss: float | None
    last_loss: float | None
    best_validation_loss: float | None
    sequences_per_second: float | None
    tokens_per_second: float | None
    skipped: int
    checkpoints: tuple[str, ...]
    evaluations: tuple[str, ...]


def find_runs(folder: Path) -> list[Path]:
    """Find the run folders at or below `folder`."""
    if not folder.is_dir():
        raise UsageError(f"no such folder: {folder}")
    folders = sorted(path.parent for path in folder.rglob("config.yaml"))
    runs = [p for p in folders if (p / "metrics.jsonl").is_file() or (p / "checkpoints").is_dir()]
    if not runs:
        raise UsageError(
            f"no run in {folder}", hint="Create one with `bart pretrain` or `bart finetune`."
        )
    return runs


def read_run(run: Path) -> tuple[RunSummary, list[Row]]:
    """Read the summary of a run folder and the rows of its log, which agree if it is running."""
    settings = run_settings(run)
    rows = read_metrics(run)
    steps = [row for row in rows if "loss" in row]
    first_loss, last_loss = first_and_last_loss(rows)
    validation = [row["validation_loss"] for row in rows if "validation_loss" in row]
    state = read_outcome(run) or ("running" if holder(run) else "not finished")
    checkpoints = tuple(path.name for path in list_checkpoints(run))
    reached = [row["step"] for row in rows[-1:]] + [step_of(name) for name in checkpoints[-1:]]
    summary = RunSummary(
        run=str(run),
        task="pretrain" if "denoising" in settings else "finetune",
        state=state,
        step=max(reached, default=0),
        max_steps=settings["training"]["max_steps"],
        epoch=steps[-1].get("epoch") if steps else None,
        epochs=settings["training"].get("epochs"),
        ends=_end(run, steps, settings) if state == "running" else None,
        first_loss=first_loss,
        last_loss=last_loss,
        best_validation_loss=min(validation) if validation else None,
        sequences_per_second=_median(steps, "sequences_per_second"),
        tokens_per_second=_median(steps, "tokens_per_second"),
        skipped=steps[-1]["skipped"] if steps else 0,
        checkpoints=checkpoints,
        evaluations=tuple(sorted(p.parent.name for p in run.glob("*/metrics.json"))),
    )
    return summary, rows


def _end(run: Path, steps: list[Row], settings: dict[str, Any]) -> str | None:
    """Estimate when a run will finish at its recent speed."""
    speed = _median(steps[-RECENT:], "sequences_per_second")
    if not speed:
        return None
    training = settings["training"]
    seconds = (training["max_steps"] - steps[-1]["step"]) * training["global_batch"] / speed
    written = datetime.fromtimestamp((run / "metrics.jsonl").stat().st_mtime).astimezone()
    return (written + timedelta(seconds=seconds)).isoformat(timespec="seconds")


def compare_runs(runs: list[Path]) -> dict[str, list[Any]]:
    """Find the settings that differ between runs: key -> value of each run (None: not set).

    Task and description are not compared.
    """
    trees = [dict(flatten(run_settings(run))) for run in runs]
    keys = dict.fromkeys(key for tree in trees for key in tree)
    table = {
        key: [tree.get(key) for tree in trees] for key in keys if key not in ("task", "description")
    }
    return {key: values for key, values in table.items() if any(v != values[0] for v in values)}


def run_settings(run: Path) -> dict[str, Any]:
    """Read the settings in RUN/config.yaml."""
    path = run / "config.yaml"
    if not path.is_file():
        raise UsageError(f"{run} is not a run folder: it has no config.yaml")
    settings = read_yaml(path)
    training = settings.get("training")
    if isinstance(training, dict) and "max_steps" in training:
        return settings
    raise UsageError(f"{run} is not a run of pretrain or finetune")


def _median(rows: list[dict[str, Any]], name: str) -> float | None:
    return statistics.median(row[name] for row in rows) if rows else None
