"""Available memory: the minimum over the machine, the control groups and ulimit."""

from __future__ import annotations

from pathlib import Path

import pytest

from bart_cli.runtime.memory import available_memory
from tests.unit.runtime.test_cores import group

MIB = 2**20


@pytest.fixture
def machine(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Simulate a machine with 8 GiB available; the process is in the group /pod/box."""
    group(tmp_path / "proc", meminfo=f"MemTotal: 99 kB\nMemAvailable:  {8192 * 1024} kB\n")
    (tmp_path / "cgroup").write_text("0::/pod/box\n")
    return tmp_path / "fs", tmp_path / "cgroup", tmp_path / "proc"


@pytest.mark.parametrize(
    ("limits", "expected"),
    [({}, 8192), ({"pod": "max"}, 8192), ({"pod/box": "1000", "pod": "3000"}, 700), ({"": "9"}, 0)],
)
def test_the_smallest_limit_counts_without_the_page_cache(
    machine: tuple[Path, Path, Path], limits: dict[str, str], expected: int
) -> None:
    for path, limit in limits.items():
        group(
            machine[0] / path,
            memory__max="max" if limit == "max" else f"{int(limit) * MIB}",
            memory__current=f"{500 * MIB}",
            memory__stat=f"anon 1\ninactive_file {200 * MIB}\n",
        )
    assert available_memory(*machine) == expected * MIB


def test_version_1_and_unknown_machines(tmp_path: Path) -> None:
    limits = {"memory__limit_in_bytes": "900", "memory__usage_in_bytes": "500"}
    group(tmp_path / "fs/memory/a", **limits, memory__stat="total_inactive_file 50\n")
    (tmp_path / "cgroup").write_text("4:memory:/a\n")
    assert available_memory(tmp_path / "fs", tmp_path / "cgroup", tmp_path / "proc") == 450
    assert available_memory(tmp_path / "none", tmp_path / "no", tmp_path / "proc") is None
