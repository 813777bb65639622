"""Work that one rank of a machine does for all: done once, shared, nothing left."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import IO

import pytest

from bart_cli.errors import BartError
from bart_cli.runtime import machine
from bart_cli.runtime.machine import once_per_machine
from bart_cli.runtime.world import World
from tests.ranks import in_ranks

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")


@pytest.mark.parametrize("machines", [1, 2])
def test_a_file_is_written_once_per_machine_and_leaves_no_trace(
    machines: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(machine, "_machine", lambda rank: f"node {rank % machines}")
    writers: list[int] = []

    def share(world: World) -> bytes:
        def write(file: IO[bytes]) -> None:
            writers.append(world.rank)
            file.write(b"ids of node %d" % (world.rank % machines))

        return once_per_machine(world, write, lambda path: Path(path).read_bytes())

    assert in_ranks(4, share) == [b"ids of node %d" % (rank % machines) for rank in range(4)]
    assert sorted(writers) == list(range(machines))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (BartError("no usable pair"), "no usable pair"),
        (OSError(28, "No space left on device"), "TMP: No space left on device"),
    ],
)
def test_every_rank_hears_why_it_was_not_written(
    problem: Exception, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def fail(file: IO[bytes]) -> None:
        file.write(b"half")
        raise problem

    errors = in_ranks(2, lambda world: once_per_machine(world, fail, lambda path: path))
    assert [str(error) for error in errors] == [message.replace("TMP", str(tmp_path))] * 2
    assert not list(tmp_path.iterdir())
