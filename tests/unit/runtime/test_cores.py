"""Cores available in a container, according to its control groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from bart_cli.runtime.cores import configure_threads, cpu_quota, threads_of_each, usable_cores


def group(root: Path, **files: str) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (root / name.replace("__", ".")).write_text(content)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"": "max 100000\n"}, None),
        ({"": "150000 100000\n"}, 1.5),
        ({"": "max 100000\n", "pod": "400000 100000\n", "pod/box": "max 100000\n"}, 4.0),
        ({"pod": "800000 100000\n", "pod/box": "50000 100000\n"}, 0.5),
        ({"pod/box": "nonsense\n"}, None),
    ],
)
def test_version_2_takes_the_smallest_quota_on_the_way_up(
    tmp_path: Path, limits: dict[str, str], expected: float | None
) -> None:
    for path, limit in limits.items():
        group(tmp_path / "fs" / path, cpu__max=limit)
    own = tmp_path / "cgroup"
    own.write_text("0::/pod/box\n")
    assert cpu_quota(tmp_path / "fs", own) == expected


@pytest.mark.parametrize(("quota", "expected"), [("-1\n", None), ("250000\n", 2.5)])
def test_version_1_has_a_file_for_the_quota_and_one_for_the_period(
    tmp_path: Path, quota: str, expected: float | None
) -> None:
    folder = tmp_path / "fs" / "cpu,cpuacct"
    group(folder / "docker/box", cpu__cfs_quota_us=quota, cpu__cfs_period_us="100000\n")
    own = tmp_path / "cgroup"
    own.write_text("12:pids:/docker/box\n4:cpu,cpuacct:/docker/box\n1:name=systemd:/\n")
    assert cpu_quota(tmp_path / "fs", own) == expected


def test_a_machine_without_control_groups_has_no_quota(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path, tmp_path / "cgroup") is None


def test_a_quota_limits_cores_and_torch_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bart_cli.runtime.cores.cpu_quota", lambda: 1.5)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)), raising=False)
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    assert usable_cores() == 2
    configure_threads()
    import os

    assert os.environ["OMP_NUM_THREADS"] == "2"
    assert threads_of_each(2) == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert threads_of_each(2) == "7", "the user's"
    assert int(os.environ["GOMP_SPINCOUNT"]) < 300_000
