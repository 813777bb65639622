"""Options and output shared by `bart pretrain` and `bart finetune`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bart_cli.cli.console import print_json, print_rows, say
from bart_cli.cli.options import option, setting
from bart_cli.config.training import OptimizerConfig, ScheduleConfig, TrainingConfig

if TYPE_CHECKING:
    from bart_cli.progress import Reporter
    from bart_cli.training.run import RunResult

GB, GIB = 1e9, 2**30
run_setting = partial(setting, TrainingConfig)
ProcessesOption = Annotated[
    int | None,
    option(
        "Worker processes on this machine. Default: one per GPU; 1 without a GPU.",
        "--processes",
        "--gpus",
        min=1,
    ),
]


@dataclass(frozen=True)
class TrainingOptions:
    """Run settings that have their own option; None means not given."""

    max_steps: Annotated[int | None, run_setting("max_steps")] = None
    epochs: Annotated[float | None, run_setting("epochs")] = None
    global_batch: Annotated[int | None, run_setting("global_batch")] = None
    micro_batch: Annotated[str | None, run_setting("micro_batch", metavar="N|auto")] = None
    learning_rate: Annotated[float | None, setting(OptimizerConfig, "learning_rate")] = None
    warmup_steps: Annotated[int | None, setting(ScheduleConfig, "warmup_steps")] = None
    precision: Annotated[str | None, run_setting("precision", metavar="NAME")] = None
    seed: Annotated[int | None, run_setting("seed")] = None
    time_limit: Annotated[float | None, run_setting("time_limit", metavar="MINUTES")] = None
    resume: Annotated[str, option("Checkpoint to resume from.", metavar="auto|none|PATH")] = "auto"
    processes: ProcessesOption = None
    max_restarts: Annotated[int, option("Maximum restarts after a worker dies.", min=0)] = 0
    dry_run: Annotated[
        bool,
        option(
            "Check everything, measure a step, and print length, memory, disk and hours; "
            "write nothing.",
            "--dry-run",
        ),
    ] = False


def start_workers(processes: int | None, max_restarts: int) -> None:
    """If several processes are requested, rerun the command in them and exit with their code."""
    from bart_cli.runtime.launch import launch, processes_to_start

    if count := processes_to_start(processes, max_restarts):
        raise typer.Exit(launch(sys.argv[1:], count, max_restarts))


def warn_once(reporter: Reporter, notices: Sequence[str]) -> None:
    """Warn on rank 0 only."""
    if os.environ.get("RANK", "0") == "0":
        for notice in notices:
            reporter.warn(notice)


def show_result(result: RunResult, as_json: bool, **more: object) -> None:
    """Print the result of a run, or the estimate of a dry run; `more` is only for JSON."""
    if not result.is_main:
        return
    if as_json:
        document = result.estimate or asdict(result)
        hidden = ("is_main", "signal", "estimate")
        print_json({k: v for k, v in document.items() if k not in hidden} | more)
    elif result.estimate:
        _show_estimate(result.estimate)
    else:
        if result.first_loss is not None and result.last_loss is not None:
            losses = f"{result.first_loss:.4f} -> {result.last_loss:.4f}"
            say(f"loss {losses} at step {result.step:,}")
        if result.model is None:
            say(f"{result.outcome} at step {result.step:,}; rerun the command to resume")
        else:
            curves = result.run / "curves.png"  # missing if the run logged nothing
            also = f", curves in {curves}" if curves.is_file() else ""
            say(f"{result.outcome}: model in {result.model}{also}")


def _show_estimate(estimate: dict[str, Any]) -> None:
    found = SimpleNamespace(**estimate)
    measured = "1 step"
    if found.measured_passes < found.passes:
        measured = f"{found.measured_passes:,} of the {found.passes:,} passes of a step"
    where = found.device if found.ranks == 1 else f"{found.ranks} ranks, {found.device}"
    frozen = found.parameters - found.trained_parameters
    parts = ", ".join(f"{name} {size / GIB:.2f}" for name, size in found.memory.items() if size)
    have = "" if found.memory_available is None else f" of {found.memory_available / GIB:.2f}"
    each = " per rank" if found.ranks > 1 else ""
    tokens = "" if found.tokens_per_epoch is None else f", {found.tokens_per_epoch:,} tokens"
    begin = f"resumes after step {found.first_step:,}" if found.first_step else "new"
    rows = {
        "run": f"{found.run} ({begin})",
        "model": found.model,
        "parameters": f"{found.parameters:,}" + (f", {frozen:,} of them frozen" if frozen else ""),
        "optimizer": found.optimizer,
        "schedule": found.schedule,
        "precision": found.precision,
        "batch": f"{found.global_batch:,} sequences per step: {found.micro_batch:,} per pass, "
        f"{found.passes:,} {'passes' if found.passes > 1 else 'pass'} ({where})",
        "data": f"{found.data}: {found.samples_per_epoch:,} samples{tokens} per epoch",
        "length": f"{found.max_steps:,} steps, {found.epochs:.2f} epochs of "
        f"{found.steps_per_epoch:,.1f} steps",
        "memory": f"{found.memory_needed / GIB:.2f}{have} GiB{each}: {parts}",
        "disk": f"{found.disk_needed / GB:.2f} GB at most, {found.disk_free / GB:.1f} GB free; "
        f"checkpoints: {found.checkpoints:,} of {found.checkpoint_bytes / GB:.2f} GB",
        "speed": f"{found.step_seconds:,.2f} s per step, {found.sequences_per_second:,.1f} "
        f"sequences/s, {found.tokens_per_second:,.0f} tokens/s (measured: {measured})",
        "time": f"{found.hours:,.2f} hours for {found.max_steps - found.first_step:,} steps, "
        "without validation",
    }
    print_rows(list(rows.items()))
