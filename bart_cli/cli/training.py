"""Options and output shared by `bart pretrain` and `bart finetune`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from bart_cli.cli.console import out
from bart_cli.cli.options import field_help
from bart_cli.config.training import OptimizerConfig, ScheduleConfig, TrainingConfig

if TYPE_CHECKING:
    from bart_cli.progress import Reporter
    from bart_cli.training.run import RunResult

ProcessesOption = Annotated[
    int | None,
    typer.Option(
        "--processes",
        "--gpus",
        min=1,
        help="Worker processes on this machine. Default: one per GPU; 1 without a GPU.",
    ),
]


@dataclass(frozen=True)
class TrainingOptions:
    """Run settings that have their own option; None means not given."""

    max_steps: Annotated[int | None, typer.Option(help=field_help(TrainingConfig, "max_steps"))] = (
        None
    )
    epochs: Annotated[
        float | None, typer.Option(help=field_help(TrainingConfig, "epochs"))
    ] = None
    global_batch: Annotated[
        int | None, typer.Option(help=field_help(TrainingConfig, "global_batch"))
    ] = None
    micro_batch: Annotated[
        str | None, typer.Option(metavar="N|auto", help=field_help(TrainingConfig, "micro_batch"))
    ] = None
    learning_rate: Annotated[
        float | None, typer.Option(help=field_help(OptimizerConfig, "learning_rate"))
    ] = None
    warmup_steps: Annotated[
        int | None, typer.Option("--warmup-steps", help=field_help(ScheduleConfig, "warmup_steps"))
    ] = None
    precision: Annotated[
        str | None, typer.Option(help="Precision: fp32, tf32, bf16 or fp16.", metavar="NAME")
    ] = None
    seed: Annotated[int | None, typer.Option(help=field_help(TrainingConfig, "seed"))] = None
    time_limit: Annotated[
        float | None, typer.Option(metavar="MINUTES", help=field_help(TrainingConfig, "time_limit"))
    ] = None
    resume: Annotated[
        str, typer.Option(metavar="auto|none|PATH", help="Checkpoint to resume from.")
    ] = "auto"
    processes: ProcessesOption = None
    max_restarts: Annotated[
        int, typer.Option(min=0, help="Maximum restarts after a worker dies.")
    ] = 0

    def settings(self) -> dict[str, object]:
        """Return values by configuration key; None means not given."""
        return {
            "training.max_steps": self.max_steps,
            "training.epochs": self.epochs,
            "training.global_batch": self.global_batch,
            "training.micro_batch": self.micro_batch,
            "optimizer.learning_rate": self.learning_rate,
            "schedule.warmup_steps": self.warmup_steps,
            "training.precision": self.precision,
            "training.seed": self.seed,
            "training.time_limit": self.time_limit,
        }


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


def show_result(result: RunResult) -> None:
    """Print the result of a run."""
    if not result.leads:
        return
    if result.first_loss is not None and result.last_loss is not None:
        out.print(f"loss {result.first_loss:.4f} -> {result.last_loss:.4f} at step {result.step:,}")
    if result.model is None:
        out.print(
            f"{result.outcome} at step {result.step:,}; rerun the command to resume",
            soft_wrap=True,
        )
        return
    curves = result.run / "curves.png"  # missing if the run logged nothing
    also = f", curves in {curves}" if curves.is_file() else ""
    out.print(f"{result.outcome}: model in {result.model}{also}", soft_wrap=True)
