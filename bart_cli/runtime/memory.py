"""Memory that this process may still take: the machine's, its container's, and its own limit."""

from __future__ import annotations

import re
import resource
from pathlib import Path

from bart_cli.runtime.control_groups import OWN, ROOT, own_groups

PROC = Path("/proc")
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
