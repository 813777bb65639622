"""The cores that this process may use, and how torch's threads share them with other processes."""

from __future__ import annotations

import math
import os
from pathlib import Path

from bart_cli.runtime.control_groups import OWN, ROOT, own_groups

# Rounds that a thread of torch's pool spins before it sleeps. OpenMP's default of 300,000 keeps a
# core from other processes for milliseconds: on a busy machine one summary took 10 s instead of
# 0.5 s. OpenMP reads the variable when torch is loaded.
SPIN_COUNT = "10000"


def configure_threads() -> None:
    """Set what OpenMP reads when torch is loaded, unless the user has set it."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    # OpenMP counts the cores of the machine, not the time that a container may use.
    if (quota := cpu_quota()) is not None and quota < (os.cpu_count() or 1):
        os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))


def usable_cores() -> int:
    """Cores that this process may use, given its affinity (`srun`) and its container's quota."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = cpu_quota()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def cpu_quota(root: Path = ROOT, own: Path = OWN) -> float | None:
    """Processors' worth of time that the control group grants (`docker run --cpus`), or None.

    The smallest quota of the group and the groups above it counts. Source: the kernel's cgroup-v2
    (`cpu.max`) and sched-bwc (`cpu.cfs_quota_us`) documentation.
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
