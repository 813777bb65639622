"""Memory of this process: how much is available, and how malloc treats freed memory."""

import ctypes
import re
import resource
import sys
from pathlib import Path

from bart_cli.runtime.cores import OWN, ROOT, own_groups

PROC = Path("/proc")
# malloc.h: parameters of mallopt(3).
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
# Files of a control group: limit, usage, and the field with its reclaimable page cache.
FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def available_memory(root: Path = ROOT, own: Path = OWN, proc: Path = PROC) -> int | None:
    """Return the bytes that can be allocated before the kernel refuses or kills, or None.

    This is the minimum of MemAvailable (proc(5)), the rest of the limits of the control groups
    (cgroup-v2, `memory.max`), and the rest of `ulimit -v`.
    """
    found = [_kilobytes(proc / "meminfo", "MemAvailable")]
    found += [_left_in(folder) for folder in own_groups(("", "memory"), root, own)]
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    used = _kilobytes(proc / "self" / "status", "VmSize")
    if limit != resource.RLIM_INFINITY and used is not None:
        found.append(limit - used)
    known = [amount for amount in found if amount is not None]
    return max(0, min(known)) if known else None


def resident_memory() -> int:
    """Return the resident memory of this process in bytes; 0: unknown."""
    return _kilobytes(PROC / "self" / "status", "VmRSS") or 0


def peak_resident_memory() -> int:
    """Return the peak resident memory since `reset_peak_memory` in bytes; 0: unknown."""
    return _kilobytes(PROC / "self" / "status", "VmHWM") or 0


def reset_peak_memory() -> None:
    """Reset the peak of the resident memory (proc(5), `clear_refs`)."""
    path = PROC / "self" / "clear_refs"
    if path.exists():
        path.write_text("5")


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an allocation failed, on a GPU, in torch's CPU allocator or in NumPy."""
    words = ("can't allocate memory", "out of memory", "std::bad_alloc")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


def keep_freed_memory() -> bool:
    """Make malloc reuse freed tensors instead of returning them to the kernel.

    A step of BART-base on a CPU frees and allocates more than 1 GB in blocks of up to 154 MB. By
    default, glibc maps each block anew, and the kernel clears every page: a third of the step.
    Return whether this is supported (glibc on Linux).
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
    """Return the rest of the limit of one control group in bytes, or None without a limit."""
    for limit, usage, reclaimable in FILES:
        try:
            allowed, used = (int((group / name).read_text()) for name in (limit, usage))
            stat = (group / "memory.stat").read_text()
        except (OSError, ValueError):  # no such file, or `max`
            continue
        cache = re.search(rf"^{reclaimable} (\d+)$", stat, re.MULTILINE)
        return allowed - used + (int(cache[1]) if cache else 0)
    return None
