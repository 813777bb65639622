"""Find the control groups (cgroups) of this process, where containers set their limits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


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
