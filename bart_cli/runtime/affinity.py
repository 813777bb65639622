"""Bind each rank to its own cores, near its GPU, so that the kernel does not migrate it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

FEWEST = 2  # with fewer cores per rank, binding does more harm than good


def bind_cores(local_rank: int, local_size: int, device: torch.device) -> set[int] | None:
    """Bind this process to its share of the node's cores.

    Does nothing with fewer than two cores per rank, or if the launcher has already bound the
    process (`srun --cpu-bind`).

    Returns:
        the cores of this process, or None if it was not bound.
    """
    if local_size == 1 or not hasattr(os, "sched_setaffinity"):
        return None
    allowed = os.sched_getaffinity(0)
    if len(allowed) < (os.cpu_count() or 1):
        return None
    near = [gpu_cores(index) if device.type == "cuda" else None for index in range(local_size)]
    share = share_of(local_rank, [allowed & cores if cores else allowed for cores in near])
    if len(share) < FEWEST:
        return None
    os.sched_setaffinity(0, share)
    return share


def share_of(local_rank: int, near: list[set[int]]) -> set[int]:
    """Return the cores of one rank: those near its device, divided among the ranks that share them.

    Args:
        near: for each local rank, the cores near its device.
    """
    sharing = [rank for rank, cores in enumerate(near) if cores == near[local_rank]]
    cores = sorted(near[local_rank])
    index, count = sharing.index(local_rank), len(sharing)
    return set(cores[len(cores) * index // count : len(cores) * (index + 1) // count])


def gpu_cores(index: int, root: Path = Path("/sys/bus/pci/devices")) -> set[int] | None:
    """Return the cores on the NUMA node of a GPU, or None if the kernel does not tell."""
    properties: Any = torch.cuda.get_device_properties(index)
    address = (
        f"{properties.pci_domain_id:04x}:{properties.pci_bus_id:02x}:"
        f"{properties.pci_device_id:02x}.0"
    )
    path = root / address / "local_cpulist"
    return parse_cpulist(path.read_text()) if path.is_file() else None


def parse_cpulist(text: str) -> set[int]:
    """Parse the list format of cpuset(7): `0-3,8` -> {0, 1, 2, 3, 8}."""
    cores: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        cores.update(range(int(first), int(last or first) + 1))
    return cores
