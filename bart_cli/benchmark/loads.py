"""What every load offers to the clock, and which load a spec stands for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from bart_cli.benchmark.spec import ArmSpec, DataSpec, DecodingSpec
from bart_cli.runtime.world import World


@dataclass(frozen=True)
class Work:
    """What one run of a load did on this rank; `flops` None: not a matter of arithmetic.

    items: sequences, articles, samples or bytes. tokens: real ones of both sides, without padding.
    """

    items: float
    tokens: int
    flops: float | None = None


@dataclass(frozen=True)
class Shape:
    """Matrix products that are typical of a load: [rows, inner] x [inner, columns]."""

    rows: int
    inner: int
    columns: int
    dtype: torch.dtype


class Load(Protocol):
    """Something to be timed, again and again."""

    def prepare(self, size: int) -> None:
        """Make what batches of this size need; not timed."""

    def run(self) -> Work:
        """One unit: a step, a batch, a pass."""

    def shape(self) -> Shape | None:
        """The matrix product whose speed is the ceiling; None: no such ceiling."""


def build_load(arm: ArmSpec, world: World) -> Load:
    """The load of an arm, in one of its processes."""
    spec = arm.load
    if isinstance(spec, DataSpec):
        from bart_cli.benchmark.data_load import DataLoad

        return DataLoad(spec, arm.benchmark.seed)
    if isinstance(spec, DecodingSpec):
        if arm.side == "transformers":
            from bart_cli.benchmark.transformers_load import TheirDecoding

            return TheirDecoding(spec, arm, world)
        from bart_cli.benchmark.decoding_load import DecodingLoad

        return DecodingLoad(spec, arm, world)
    if arm.side == "transformers":
        from bart_cli.benchmark.transformers_load import TheirTraining

        return TheirTraining(spec, arm, world)
    from bart_cli.benchmark.training_load import TrainingLoad

    return TrainingLoad(spec, arm, world)
