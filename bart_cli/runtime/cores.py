"""Count the cores that this process may use, and set up torch's threads for them.

Containers set their limits in control groups (cgroups).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

# Iterations that a thread of torch's pool spins before it sleeps. OpenMP's default of 300,000 keeps
# a core from other processes for milliseconds: on a busy machine, a summary took 10 s instead of
# 0.5 s. OpenMP reads the variable when torch is loaded.
SPIN_COUNT = "10000"
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

    Args:
        controllers: names of version 1 controllers; "" stands for version 2, which has one tree.
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
