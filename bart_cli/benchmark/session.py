"""The measurements in each process of a case: time, memory and ceiling of its load."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bart_cli.benchmark.cases import Case, DataSpec, DecodingSpec, TrainingSpec
from bart_cli.benchmark.data_load import DataLoad
from bart_cli.benchmark.loads import DecodingLoad, Load, TrainingLoad, Work
from bart_cli.files import atomic_file
from bart_cli.runtime.flops import measured_flops, peak_flops, synchronize
from bart_cli.runtime.memory import peak_resident_memory, reset_peak_memory
from bart_cli.runtime.world import World

HOTTEST = 10  # operators to show of a profile


@dataclass(frozen=True)
class Measurement:
    """Measurement of a unit of work on one rank.

    Attributes:
        items, tokens: amount of work of all ranks; see Work.
        ceiling: FLOP/s of matrix products just before, if measured.
        peak_flops: FLOP/s of the data sheet, if known.
        memory: peak memory in bytes.
    """

    seconds: float
    items: float
    tokens: int
    flops: float | None
    ceiling: float | None
    peak_flops: float | None
    memory: int


LOADS: dict[type, Callable[[Any, Case, World], Load[Any]]] = {
    TrainingSpec: TrainingLoad,
    DecodingSpec: DecodingLoad,
    DataSpec: DataLoad,
}


class Session:
    """The load of a case on one rank."""

    _load: Load[Any] | None = None
    _units: Iterator[Work]

    def __init__(self, world: World) -> None:
        self._world, self._device = world, world.device
        self._on_gpu = world.device.type == "cuda"

    def prepare(self, case: Case, size: int) -> None:
        """Warm up with batches of this size."""
        self._case, self._size = case, size
        self._load = self._load or LOADS[type(case.load)](case.load, case, self._world)
        self._units = self._load.prepare(size)
        for _ in range(case.benchmark.warm_up):
            next(self._units)

    def measure(self, with_ceiling: bool) -> Measurement:
        """Time one unit of work."""
        assert self._load is not None
        product, ceiling = self._load.product, None
        if with_ceiling and product is not None:
            inner, columns, dtype = product
            shape = self._size * self._case.load.length, inner, columns
            ceiling = measured_flops(self._device, dtype, shape)
        if self._on_gpu:
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            reset_peak_memory()
        self._world.barrier()
        synchronize(self._device)
        begin = time.perf_counter()
        work = next(self._units)
        synchronize(self._device)
        seconds = time.perf_counter() - begin
        memory = peak_resident_memory()
        return Measurement(
            seconds=seconds,
            items=work.items,
            tokens=work.tokens * self._world.size,
            flops=work.flops,
            ceiling=ceiling,
            peak_flops=peak_flops(self._device, self._case.precision),  # type: ignore[arg-type]
            memory=torch.cuda.max_memory_allocated(self._device) if self._on_gpu else memory,
        )

    def profile(self, path: Path) -> list[list[str]]:
        """Trace two units of work; return name, calls, milliseconds and share of hot operators."""
        column = "self_device_time_total" if self._on_gpu else "self_cpu_time_total"
        activities = [torch.profiler.ProfilerActivity.CPU]
        activities += [torch.profiler.ProfilerActivity.CUDA] if self._on_gpu else []
        with torch.profiler.profile(activities=activities) as profiler:
            for _ in range(2):
                next(self._units)
            synchronize(self._device)
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
