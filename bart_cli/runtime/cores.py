"""Count the cores that this process may use, set up torch's threads for them, and bind ranks.

Containers set their limits in control groups (cgroups).
"""

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

# Iterations that a thread of torch's pool spins before it sleeps. OpenMP's default of 300,000 keeps
# a core from other processes for milliseconds: on a busy machine, a summary took 10 s instead of
# 0.5 s. OpenMP reads the variable when torch is loaded.
SPIN_COUNT = "10000"
FEWEST = 2  # with fewer cores per rank, binding them does more harm than good
ROOT, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")

_CHOSEN: dict[str, str] = {}  # what `configure_threads` set in place of the user


def configure_threads() -> None:
    """Set the OpenMP variables that the user has not set. Call this before importing torch."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    # OpenMP counts the cores of the machine and ignores the CPU quota of a container.
    limited = (quota := cpu_quota()) is not None and quota < (os.cpu_count() or 1)
    if limited and "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = _CHOSEN["OMP_NUM_THREADS"] = str(usable_cores())


def threads_of_each(processes: int) -> str:
    """Return OMP_NUM_THREADS of each of several processes: the user's, or an equal share."""
    threads = os.environ.get("OMP_NUM_THREADS")
    if threads is None or threads == _CHOSEN.get("OMP_NUM_THREADS"):
        return str(max(1, usable_cores() // processes))
    return threads


def usable_cores() -> int:
    """Count the cores that this process may use, by its affinity (`srun`) and CPU quota."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = cpu_quota()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def cpu_quota(root: Path = ROOT, own: Path = OWN) -> float | None:
    """Return the CPU quota of the control group (`docker run --cpus`) in CPUs, or None.

    This is the smallest quota of the group and its ancestors. Source: cgroup-v2 (`cpu.max`) and
    sched-bwc (`cpu.cfs_quota_us`) in the kernel's documentation.
    """
    groups = own_groups(("", "cpu", "cpu,cpuacct"), root, own)
    return min((quota for quota in map(_quota_of, groups) if quota is not None), default=None)


def _quota_of(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError):  # no file, or `max`
        return None


def own_groups(controllers: Sequence[str], root: Path = ROOT, own: Path = OWN) -> Iterator[Path]:
    """Yield the folders of this process's group and of its ancestors, innermost first.

    Controllers have names in version 1; "" stands for version 2, which has one tree.
    """
    for line in own.read_text().splitlines() if own.is_file() else []:
        _, names, path = line.split(":", 2)
        if names not in controllers:
            continue
        base = root / names
        for folder in (base / path.lstrip("/"), *(base / path.lstrip("/")).parents):
            yield folder
            if folder == base:
                break


def bind_cores(local_rank: int, local_size: int, *, on_gpu: bool) -> None:
    """Bind a rank to its own cores, near its GPU, so that the kernel does not migrate it.

    Does nothing with fewer than two cores per rank, or if the launcher has already bound the
    process (`srun --cpu-bind`).
    """
    if local_size == 1 or not hasattr(os, "sched_setaffinity"):
        return
    allowed = os.sched_getaffinity(0)
    if len(allowed) < (os.cpu_count() or 1):
        return
    near = [gpu_cores(index) if on_gpu else None for index in range(local_size)]
    share = share_of(local_rank, [allowed & cores if cores else allowed for cores in near])
    if len(share) >= FEWEST:
        os.sched_setaffinity(0, share)


def share_of(local_rank: int, near: list[set[int]]) -> set[int]:
    """Divide the cores near the device of each local rank among the ranks that share them."""
    sharing = [rank for rank, cores in enumerate(near) if cores == near[local_rank]]
    cores = sorted(near[local_rank])
    index, count = sharing.index(local_rank), len(sharing)
    return set(cores[len(cores) * index // count : len(cores) * (index + 1) // count])


def gpu_cores(index: int) -> set[int] | None:
    """Return the cores on the NUMA node of a GPU, or None if the kernel does not tell."""
    import torch  # not before `configure_threads`

    properties: Any = torch.cuda.get_device_properties(index)
    address = (
        f"{properties.pci_domain_id:04x}:{properties.pci_bus_id:02x}:"
        f"{properties.pci_device_id:02x}.0"
    )
    path = Path("/sys/bus/pci/devices") / address / "local_cpulist"
    return parse_cpulist(path.read_text()) if path.is_file() else None


def parse_cpulist(text: str) -> set[int]:
    """Parse the list format of cpuset(7): `0-3,8` -> {0, 1, 2, 3, 8}."""
    cores: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        cores.update(range(int(first), int(last or first) + 1))
    return cores
