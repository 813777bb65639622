"""Epochs as steps: the loader takes exactly so many of them to hand out every sample."""

from __future__ import annotations

from fractions import Fraction

import pytest

from bart_cli.config.run import PretrainConfig
from bart_cli.data.order import rank_positions
from bart_cli.progress import Reporter
from bart_cli.training.checks import in_steps


def config(**training: object) -> PretrainConfig:
    return PretrainConfig.model_validate(
        {
            "schedule": {"warmup_ratio": 0.1},
            "training": {"micro_batch": 1, "global_batch": 8, **training},
        }
    )


@pytest.mark.parametrize(
    ("epochs", "samples", "global_batch"),
    [(1, 64, 8), (1, 65, 8), (3, 65, 8), (3, 5, 8), (2.5, 30, 4), (0.07, 100, 1), (1e-9, 100, 7)],
)
def test_the_last_step_is_the_first_that_reaches_the_end_of_the_last_epoch(
    epochs: float, samples: int, global_batch: int
) -> None:
    asked = config(epochs=epochs, global_batch=global_batch, checkpoint_every="epoch")
    training = in_steps(asked, lambda: samples, Reporter()).training
    read, steps = 0, 0
    while read < Fraction(str(epochs)) * samples:
        read += len(rank_positions(read, global_batch, 0, 1))
        steps += 1
    assert training.max_steps == steps
    assert (training.checkpoint_every - 1) * global_batch < samples
    assert training.checkpoint_every * global_batch >= samples


def test_what_does_not_depend_on_the_data_is_resolved_without_counting_them() -> None:
    resolved = in_steps(config(max_steps=50), lambda: pytest.fail("counted"), Reporter())
    assert (resolved.training.max_steps, resolved.schedule.warmup_steps) == (50, 5)
