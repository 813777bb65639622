"""Start, stop and finish training runs of the real command."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from bart_cli.config.run import save_config
from bart_cli.training.metrics import read_metrics
from tests.command import Command, bart, decoded, start, start_ranks
from tests.unit.training.test_runs import pretrain_config

STEPS, STOP = 20, 7


def write_config(shards: Path, path: Path, dropout: float) -> Path:
    # With noise, and with validation, which must not affect the training.
    settings = pretrain_config(
        shards, max_steps=STEPS, log_every=1, checkpoint_every=3, micro_batch=2, validate_every=6
    )
    model = settings.model.model_copy(update={"dropout": dropout, "attention_dropout": dropout})
    save_config(settings.model_copy(update={"model": model}), path)
    return path


def pretrain(config: Path, run: Path, *more: object) -> list[object]:
    return ["pretrain", "--config", config, "--out", run, "--json", *more]


def finish(config: Path, run: Path, *more: object) -> None:
    result = bart(*pretrain(config, run, *more))
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["outcome"] == "done"


def finish_ranks(processes: int, *arguments: object) -> str:
    """Run the ranks like `srun`; return the output of rank 0 (the others print nothing)."""
    results = [decoded(rank.wait()) for rank in start_ranks(processes, *arguments)]
    assert [result.returncode for result in results] == [0] * processes, results
    assert not any(result.stdout for result in results[1:])
    return results[0].stdout


def stop_after(
    config: Path,
    run: Path,
    how: signal.Signals,
    *more: object,
    processes: int = 1,
    step: int = STOP,
) -> int:
    """Start the run, send a signal once this step is logged; return rank 0's exit code."""
    words = pretrain(config, run, *more)
    ranks = start_ranks(processes, *words) if processes > 1 else [start(*words)]
    wait_for_step(run, step, ranks[0])
    assert all(rank.running for rank in ranks), "the run ended before it could be stopped"
    for rank in ranks:  # to their process groups, like a terminal, `timeout` and SLURM
        rank.signal(how)
    first, *_ = [rank.wait() for rank in ranks]
    return first.returncode


def wait_for_step(run: Path, step: int, command: Command) -> None:
    """Wait until the run has logged a step; raise with the output if the command ends first."""
    command.until(lambda: any(row["step"] >= step for row in read_metrics(run)))


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(run) if "loss" in row]
