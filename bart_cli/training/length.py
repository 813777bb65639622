"""Resolve the length of a run to steps.

In: a configuration with lengths in epochs or in shares of the run. Out: the same in steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

from bart_cli.progress import Reporter
from bart_cli.training.fit import Config


def in_steps(config: Config, samples: Callable[[], int], reporter: Reporter = Reporter()) -> Config:
    """Resolve `epochs`, `warmup_ratio` and intervals of one epoch to steps.

    The loader fills the last batch of an epoch with samples of the next epoch. Therefore only the
    total is rounded up, not every epoch.

    Args:
        samples: returns the number of samples per epoch; called only if needed.
    """
    training, schedule = config.training, config.schedule
    changes: dict[str, int] = {}
    every = {name: getattr(training, name) for name in ("checkpoint_every", "validate_every")}
    if training.epochs is not None or "epoch" in every.values():
        epoch = samples()
        changes = {n: _steps(1, epoch, training.global_batch) for n in every if every[n] == "epoch"}
        if training.epochs is not None:
            steps = changes["max_steps"] = _steps(training.epochs, epoch, training.global_batch)
            reporter.info(
                f"{training.epochs:g} epochs of {epoch:,} samples: {steps:,} steps of "
                f"{training.global_batch:,}"
            )
        training = training.model_copy(update=changes)
    if schedule.warmup_ratio is not None:
        warmup = round(schedule.warmup_ratio * training.max_steps)
        schedule = schedule.model_copy(update={"warmup_steps": warmup})
    return config.model_copy(update={"training": training, "schedule": schedule})


def _steps(epochs: float, samples: int, global_batch: int) -> int:
    return math.ceil(Fraction(str(epochs)) * samples / global_batch)  # 0.07 is 7/100
