"""Settings of benchmarks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bart_cli.config.base import Section


class BenchmarkConfig(Section):
    """How `bart benchmark` measures each row of its tables."""

    repeats: int = Field(30, ge=1, le=100_000, description="maximum measurements per row")
    seconds: float = Field(
        10.0,
        gt=0,
        description="seconds after which to stop measuring a row, after at least 3 measurements",
    )
    warm_up: int = Field(2, ge=0, description="warm-up runs that are not measured")
    lengths: Literal["real", "full"] = Field(
        "real",
        description=(
            "lengths of random inputs: real: distributed as in CNN-DailyMail; full: all at the "
            "maximum"
        ),
    )
    accumulation: int = Field(1, ge=1, description="micro-batches per training step")
    seed: int = Field(0, ge=0, lt=2**63, description="seed for weights, lengths and tokens")
    compare: Literal["none", "transformers"] = Field(
        "none", description="library to compare with bart, in separate processes"
    )
    profile: bool = Field(
        False, description="write a torch profiler trace of each case's largest batch"
    )
