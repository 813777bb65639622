"""How speed is measured: how often, for how long, on what."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bart_cli.config.base import Section


class BenchmarkConfig(Section):
    """What `bart benchmark` does with every row of its tables."""

    repeats: int = Field(30, ge=1, le=100_000, description="measurements of a row at most")
    seconds: float = Field(
        10.0, gt=0, description="of measuring, after which a row with 3 measurements ends"
    )
    warm_up: int = Field(2, ge=0, description="runs before the clock counts")
    lengths: Literal["real", "full"] = Field(
        "real",
        description="random tokens: lengths distributed as in CNN-DailyMail, or all the longest",
    )
    accumulation: int = Field(1, ge=1, description="micro-batches of a training step")
    seed: int = Field(0, ge=0, lt=2**63, description="of weights, lengths and tokens")
    compare: Literal["none", "transformers"] = Field(
        "none", description="what is measured in turn with ours, in processes beside it"
    )
    profile: bool = Field(
        False, description="write a torch profiler trace of every arm's largest batch"
    )
