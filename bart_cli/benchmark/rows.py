"""A row: what was measured of one arm at one batch size, and the numbers that it comes to."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from bart_cli.benchmark.session import Message
from bart_cli.benchmark.spec import ArmSpec, DataSpec, DecodingSpec, TrainingSpec

PERCENTILES = (50, 90, 95, 99)


@dataclass
class Row:
    """One row. Lists hold a value for each measurement; `outcome` is ok or why there are none.

    place: number of the batch size in its arm, which pairs rows of precisions with other batches.
    items: sequences, articles, samples or bytes of all processes; flops: of one process.
    ceiling: FLOP/s of matrix products in the same precision, measured in between, of one process.
    """

    name: str
    side: str
    processes: int
    precision: str
    length: int
    size: int
    place: int
    outcome: str = "ok"
    seconds: list[float] = field(default_factory=list)
    items: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    flops: list[float] = field(default_factory=list)
    ceiling: list[float] = field(default_factory=list)
    peak_flops: float | None = None
    memory: int = 0

    @classmethod
    def of(cls, arm: ArmSpec, size: int) -> Row:
        """An empty row."""
        return cls(
            name=name_of(arm),
            side=arm.side,
            processes=arm.processes,
            precision=arm.precision,
            length=arm.load.length,
            size=size,
            place=arm.sizes.index(size),
        )

    def add(self, answer: Message) -> None:
        """Take in a measurement."""
        self.seconds.append(answer["seconds"])
        self.items.append(answer["items"])
        self.tokens.append(answer["tokens"])
        if answer["flops"] is not None:
            self.flops.append(answer["flops"])
        if answer["ceiling"] is not None:
            self.ceiling.append(answer["ceiling"])
        self.peak_flops = answer["peak_flops"]
        self.memory = max(self.memory, answer["memory"])

    @property
    def ok(self) -> bool:
        """Whether there are measurements."""
        return self.outcome == "ok" and bool(self.seconds)

    @property
    def rates(self) -> list[float]:
        """Items per second of each measurement."""
        return [items / seconds for items, seconds in zip(self.items, self.seconds, strict=True)]

    @property
    def throughput(self) -> float:
        """Items per second, the median."""
        return statistics.median(self.rates)

    @property
    def tokens_per_second(self) -> float:
        """Real tokens per second, the median."""
        return statistics.median(t / s for t, s in zip(self.tokens, self.seconds, strict=True))

    @property
    def latency(self) -> dict[str, float]:
        """Seconds of a run: mean and percentiles."""
        values = np.percentile(self.seconds, PERCENTILES).tolist()
        return {"mean": statistics.mean(self.seconds)} | {
            f"{p}%": value for p, value in zip(PERCENTILES, values, strict=True)
        }

    def utilization(self, *, measured: bool) -> float | None:
        """MFU: useful FLOP/s over the measured ceiling, or over the data sheet's; None: unknown."""
        if not self.flops:
            return None
        done = statistics.median(f / s for f, s in zip(self.flops, self.seconds, strict=True))
        peak = statistics.median(self.ceiling) if self.ceiling else None
        peak = peak if measured else self.peak_flops
        return None if peak is None else done / peak

    def summary(self) -> dict[str, Any]:
        """All of it as plain data: a line of results.jsonl."""
        derived: dict[str, Any] = {}
        if self.ok:
            derived = {
                "throughput": self.throughput,
                "throughput_range": [min(self.rates), max(self.rates)],
                "tokens_per_second": self.tokens_per_second,
                "latency": self.latency,
                "mfu_measured": self.utilization(measured=True),
                "mfu_data_sheet": self.utilization(measured=False),
            }
        return asdict(self) | derived


def name_of(arm: ArmSpec) -> str:
    """What kind of load an arm is, for titles and for pairing rows."""
    load = arm.load
    if isinstance(load, TrainingSpec):
        return "Pre-training" if load.run.task == "pretrain" else "Fine-tuning"
    if isinstance(load, DecodingSpec):
        return "Inference"
    assert isinstance(load, DataSpec)
    return load.stage


def ratios(ours: Row, theirs: Row) -> list[float]:
    """How many times as fast ours was, measurement by measurement (they were taken in turn)."""
    return [a / b for a, b in zip(ours.rates, theirs.rates, strict=False)]
