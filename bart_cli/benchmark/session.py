"""A case, and its measurements on one rank: time, memory and ceiling of its load."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from bart_cli.config.commands import BenchmarkConfig
from bart_cli.data.batch import IGNORE, Batch
from bart_cli.files import atomic_file
from bart_cli.runtime.flops import measured_flops, peak_flops, synchronize
from bart_cli.runtime.memory import peak_resident_memory, reset_peak_memory
from bart_cli.runtime.world import World

HOTTEST = 10  # operators to show of a profile
Product = tuple[int, int, torch.dtype]  # rows and columns of a weight, and dtype of its products


@dataclass(frozen=True)
class Unit:
    """A unit of work, and its measurement on one rank.

    Attributes:
        items: sequences, articles, samples or bytes, of all ranks.
        tokens: real tokens of both sides, without padding; this rank's times the number of ranks.
        flops: FLOPs of this rank; None: not limited by arithmetic.
        ceiling: FLOP/s of matrix products just before, if measured.
        peak_flops: FLOP/s of the data sheet, if known.
        memory: peak memory in bytes.
    """

    items: float
    tokens: int
    flops: float | None = None
    seconds: float = 0.0
    ceiling: float | None = None
    peak_flops: float | None = None
    memory: int = 0


@dataclass(frozen=True)
class Load(ABC):
    """The work of a case.

    Attributes:
        name: title of its table, or stage of the data.
        length: maximum length of a source in tokens.
    """

    name: str
    length: int

    @abstractmethod
    def start(self, case: Case, world: World) -> tuple[Product | None, Units]:
        """Build the models on one rank.

        Returns:
            a typical matrix product (None: products do not limit the speed), and a function of a
            batch size, which makes batches and returns an endless iterator that does a unit of
            work per item. It raises UsageError if the data lacks what the load needs.
        """


@dataclass(frozen=True)
class Case:
    """A configuration to measure; `sizes` are its rows: batch sizes, or processes of a stage."""

    load: Load
    sizes: tuple[int, ...]
    benchmark: BenchmarkConfig
    side: Literal["bart", "transformers"] = "bart"
    processes: int = 1
    precision: str = "fp32"


Group = list[Case]  # cases that take turns
Units = Callable[[int], Iterator[Unit]]  # see Load.start


def lengths_of(batches: Sequence[Batch]) -> list[tuple[Tensor, Tensor]]:
    """Count the real tokens of the sources and targets of each batch."""
    return [(one.source_mask.sum(1), (one.labels != IGNORE).sum(1)) for one in batches]


def unit_of(
    lengths: Sequence[tuple[Tensor, Tensor]],
    flops: Callable[[Tensor, Tensor], float] | None = None,
    ranks: int = 1,
) -> Unit:
    """Count the work of batches with these source and target lengths, on each of the ranks."""
    return Unit(
        items=ranks * sum(len(source_B) for source_B, _ in lengths),
        tokens=ranks * sum(int(source_B.sum() + target_B.sum()) for source_B, target_B in lengths),
        flops=flops and sum(flops(*pair) for pair in lengths),
    )


class Session:
    """The measurements of a case on one rank."""

    def __init__(self, world: World) -> None:
        self._world, self._on_gpu = world, world.device.type == "cuda"
        self._started: tuple[Product | None, Units] | None = None

    def prepare(self, case: Case, size: int) -> None:
        """Start the load, the first time, and warm up with batches of this size."""
        self._started = self._started or case.load.start(case, self._world)
        self._product, units_of = self._started
        self._case, self._size, self._units = case, size, units_of(size)
        for _ in range(case.benchmark.warm_up):
            next(self._units)

    def measure(self, with_ceiling: bool) -> Unit:
        """Time one unit of work."""
        device, ceiling = self._world.device, None
        if with_ceiling and self._product is not None:
            inner, columns, dtype = self._product
            shape = self._size * self._case.load.length, inner, columns
            ceiling = measured_flops(device, dtype, shape)
        if self._on_gpu:
            torch.cuda.reset_peak_memory_stats(device)
        else:
            reset_peak_memory()
        self._world.barrier()
        synchronize(device)
        begin = time.perf_counter()
        unit = next(self._units)
        synchronize(device)
        seconds = time.perf_counter() - begin
        memory = torch.cuda.max_memory_allocated(device) if self._on_gpu else peak_resident_memory()
        peak = peak_flops(device, self._case.precision)  # type: ignore[arg-type]
        return replace(unit, seconds=seconds, ceiling=ceiling, peak_flops=peak, memory=memory)

    def profile(self, path: Path) -> list[list[str]]:
        """Trace two units of work; return name, calls, milliseconds and share of hot operators."""
        column = "self_device_time_total" if self._on_gpu else "self_cpu_time_total"
        with torch.profiler.profile() as profiler:  # of all devices that torch supports
            for _ in range(2):
                next(self._units)
            synchronize(self._world.device)
        if self._world.is_main:
            with atomic_file(path) as temporary:
                profiler.export_chrome_trace(str(temporary))
        found = [(getattr(event, column), event) for event in profiler.key_averages()]
        total = sum(spent for spent, _ in found) or 1
        hottest = sorted(found, key=lambda pair: -pair[0])[:HOTTEST]
        return [
            [event.key, f"{event.count:,}", f"{spent / 1000:,.1f}", f"{spent / total:.1%}"]
            for spent, event in hottest
        ]
