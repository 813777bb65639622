"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math

from bart_cli.config.training import ScheduleConfig


def learning_rate(step: int, max_steps: int, peak: float, config: ScheduleConfig) -> float:
    """Compute the learning rate of optimizer step `step` (the first is 1) out of `max_steps`.

    Linear warm-up reaches `peak` at step `warmup_steps`; the decay reaches `end_learning_rate` at
    the last step. This matches the reference, which advances its schedule before each update.
    """
    if step < config.warmup_steps:
        return peak * step / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, max_steps - config.warmup_steps)
    end = config.end_learning_rate
    if config.name == "constant":
        return peak
    if config.name == "polynomial":
        return end + (peak - end) * (1 - done) ** config.power
    if config.name == "linear":
        return end + (peak - end) * (1 - done)
    if done >= 1:
        return end  # not the start of another cycle
    cycles = config.cycles if config.name == "cosine_restarts" else 1
    return end + (peak - end) * 0.5 * (1 + math.cos(math.pi * ((cycles * done) % 1.0)))
