"""What runs in an arm's process: commands in, answers out, all of them plain dictionaries.

prepare {size}: warm up with batches of this size. measure {ceiling}: one run, with its seconds.
profile {path}: a trace. Every answer has `status`: ok, out of memory, or wrong (with the words).
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch

from bart_cli.benchmark.ceiling import measure_ceiling, synchronize
from bart_cli.benchmark.loads import build_load
from bart_cli.benchmark.spec import ArmSpec
from bart_cli.errors import BartError
from bart_cli.files import atomic_file
from bart_cli.runtime.flops import peak_flops
from bart_cli.runtime.world import World

Message = dict[str, Any]
HOTTEST = 10  # operators of a profile


class Session:
    """The load of an arm and the clock beside it."""

    def __init__(self, arm: ArmSpec, world: World) -> None:
        self._arm, self._world = arm, world
        self._load = build_load(arm, world)

    def answer(self, command: Message) -> Message:
        """Do what a command says."""
        try:
            if command["do"] == "prepare":
                return self._prepare(command["size"])
            if command["do"] == "measure":
                return self._measure(command["ceiling"])
            return self._profile(Path(command["path"]))
        except BartError as error:
            return {"status": "wrong", "message": error.message, "hint": error.hint}
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if self._world.device.type == "cuda":
                torch.cuda.empty_cache()
            return {"status": "out of memory"}

    def _prepare(self, size: int) -> Message:
        self._load.prepare(size)
        reset_peak(self._world.device)
        for _ in range(self._arm.benchmark.warm_up):
            self._load.run()
        return {"status": "ok"}

    def _measure(self, ceiling: bool) -> Message:
        device = self._world.device
        shape = self._load.shape() if ceiling else None
        rate = measure_ceiling(shape, device) if shape is not None else None
        reset_peak(device)
        self._world.barrier()
        synchronize(device)
        begin = time.perf_counter()
        work = self._load.run()
        synchronize(device)
        seconds = time.perf_counter() - begin
        return {
            "status": "ok",
            "seconds": seconds,
            "items": work.items,
            "tokens": work.tokens * self._world.size,
            "flops": work.flops,
            "ceiling": rate,
            "peak_flops": peak_flops(device, self._arm.precision)  # type: ignore[arg-type]
            if self._arm.precision != "int8"
            else None,
            "memory": peak_memory(device),
        }

    def _profile(self, path: Path) -> Message:
        activities = [torch.profiler.ProfilerActivity.CPU]
        column = "self_cpu_time_total"
        if self._world.device.type == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
            column = "self_device_time_total"
        with torch.profiler.profile(activities=activities) as profiler:
            for _ in range(2):
                self._load.run()
            synchronize(self._world.device)
        if self._world.leads:
            with atomic_file(path) as temporary:
                profiler.export_chrome_trace(str(temporary))
        events = sorted(profiler.key_averages(), key=lambda event: -getattr(event, column))
        total = sum(getattr(event, column) for event in events) or 1
        return {
            "status": "ok",
            "operators": [
                {
                    "name": event.key,
                    "calls": event.count,
                    "milliseconds": getattr(event, column) / 1000,
                    "share": getattr(event, column) / total,
                }
                for event in events[:HOTTEST]
            ],
        }


def is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed: on a GPU, in torch's CPU allocator, or in numpy."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error)
    return "can't allocate memory" in text or "out of memory" in text


def reset_peak(device: torch.device) -> None:
    """Begin to watch the memory anew; on a CPU Linux forgets the largest resident size."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    path = Path("/proc/self/clear_refs")
    if path.exists():
        path.write_text("5")


def peak_memory(device: torch.device) -> int:
    """Bytes at the most since `reset_peak`: allocated on the GPU, resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
