"""Memory of this process: how much it may still take, and that freed memory is kept."""

from __future__ import annotations

import ctypes
import re
import resource
import sys
from pathlib import Path

from bart_cli.runtime.control_groups import OWN, ROOT, own_groups

PROC = Path("/proc")
# malloc.h: parameters of mallopt(3).
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
# Files of a control group: limit, usage, and the share of its page cache that can be given back.
FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def available_memory(root: Path = ROOT, own: Path = OWN, proc: Path = PROC) -> int | None:
    """Bytes that can be allocated before the kernel refuses or kills; None: unknown.

    The smallest of MemAvailable (proc(5)), what the control groups leave (cgroup-v2, `memory.max`),
    and what `ulimit -v` leaves.
    """
    found = [_kilobytes(proc / "meminfo", "MemAvailable")]
    found += [_left_in(folder) for folder in own_groups(("", "memory"), root, own)]
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    used = _kilobytes(proc / "self" / "status", "VmSize")
    if limit != resource.RLIM_INFINITY and used is not None:
        found.append(limit - used)
    known = [amount for amount in found if amount is not None]
    return max(0, min(known)) if known else None


def resident_memory(proc: Path = PROC) -> int:
    """Bytes of this process in the machine's memory now; 0: unknown."""
    return _kilobytes(proc / "self" / "status", "VmRSS") or 0


def keep_freed_memory() -> bool:
    """Let freed tensors serve the next step instead of going back to the kernel; False: cannot.

    A step of BART-base on a CPU frees and asks again for more than 1 GB in pieces of up to 154 MB.
    By default glibc maps each anew, and the kernel clears every page: a third of the step.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl has none
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1))


def _kilobytes(path: Path, name: str) -> int | None:
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB$", path.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def _left_in(group: Path) -> int | None:
    """What one control group leaves; None: it has no limit."""
    for limit, usage, reclaimable in FILES:
        try:
            allowed, used = (int((group / name).read_text()) for name in (limit, usage))
            stat = (group / "memory.stat").read_text()
        except (OSError, ValueError):  # no such file, or `max`
            continue
        cache = re.search(rf"^{reclaimable} (\d+)$", stat, re.MULTILINE)
        return allowed - used + (int(cache[1]) if cache else 0)
    return None
