"""The measurements in each process of a case: time, memory and ceiling of its load."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from bart_cli.benchmark.cases import Case
from bart_cli.files import atomic_file
from bart_cli.runtime.flops import measured_flops, peak_flops, synchronize
from bart_cli.runtime.memory import peak_resident_memory, reset_peak_memory
from bart_cli.runtime.world import World

HOTTEST = 10  # operators to show of a profile


@dataclass(frozen=True)
class Work:
    """Amount of work in a unit of a load.

    Attributes:
        items: sequences, articles, samples or bytes, of all ranks.
        tokens: real tokens of both sides, without padding; this rank's times the number of ranks.
        flops: FLOPs of this rank; None: not limited by arithmetic.
    """

    items: float
    tokens: int
    flops: float | None = None


@dataclass(frozen=True)
class Measurement:
    """Measurement of a unit of work on one rank.

    Attributes:
        ceiling: FLOP/s of matrix products just before, if measured.
        peak_flops: FLOP/s of the data sheet, if known.
        memory: peak memory in bytes.
    """

    work: Work
    seconds: float
    ceiling: float | None
    peak_flops: float | None
    memory: int


class Load(ABC):
    """The work of a case on one rank, with batches of one size at a time.

    Attributes:
        product: rows and columns of a typical weight in its matrix products, and their dtype.
            None: matrix products do not limit its speed.
    """

    product: tuple[int, int, torch.dtype] | None = None
    _units: Iterator[Work]

    def __init__(self, case: Case, world: World) -> None:
        self._case, self._benchmark, self._world = case, case.benchmark, world
        self._on_gpu = world.device.type == "cuda"

    @abstractmethod
    def units(self, size: int) -> Iterator[Work]:
        """Make batches; return an infinite iterator that does a unit of work per item.

        Raises:
            UsageError: the data lacks what the load needs.
        """

    def prepare(self, size: int) -> None:
        """Warm up with batches of this size."""
        self._size, self._units = size, self.units(size)
        for _ in range(self._benchmark.warm_up):
            next(self._units)

    def measure(self, with_ceiling: bool) -> Measurement:
        """Time one unit of work."""
        device, ceiling = self._world.device, None
        if with_ceiling and self.product is not None:
            inner, columns, dtype = self.product
            shape = self._size * self._case.load.length, inner, columns
            ceiling = measured_flops(device, dtype, shape)
        if self._on_gpu:
            torch.cuda.reset_peak_memory_stats(device)
        else:
            reset_peak_memory()
        self._world.barrier()
        synchronize(device)
        begin = time.perf_counter()
        work = next(self._units)
        synchronize(device)
        seconds = time.perf_counter() - begin
        memory = peak_resident_memory()
        if self._on_gpu:
            memory = torch.cuda.max_memory_allocated(device)
        peak = peak_flops(device, self._case.precision)  # type: ignore[arg-type]
        return Measurement(work, seconds, ceiling, peak, memory)

    def profile(self, path: Path) -> list[list[str]]:
        """Trace two units of work; return name, calls, milliseconds and share of hot operators."""
        column = "self_device_time_total" if self._on_gpu else "self_cpu_time_total"
        activities = [torch.profiler.ProfilerActivity.CPU]
        activities += [torch.profiler.ProfilerActivity.CUDA] if self._on_gpu else []
        with torch.profiler.profile(activities=activities) as profiler:
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
