"""Two commands for one output: the second is refused, unless the first is dead."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bart_cli.errors import UsageError
from bart_cli.progress import Reporter
from bart_cli.runtime import locks
from bart_cli.runtime.locks import exclusive, holder, locked_folder, locked_path

HOLD = """
import sys
from pathlib import Path
from bart_cli.runtime.locks import locked_folder
from bart_cli.progress import Reporter
with locked_folder(Path(sys.argv[1]), Reporter()):
    print(flush=True)
    sys.stdin.read()
"""


class Warnings(Reporter):
    def __init__(self) -> None:
        self.said: list[str] = []

    def warn(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "RETRY_SECONDS", 0.0)


@exclusive
def write(text: str, out: Path) -> str:
    """Run a function that writes `out` twice at the same time."""
    return write(text, out) if text == "twice" else text


def test_the_second_command_is_refused_with_the_name_of_the_first(
    tmp_path: Path, impatient: None
) -> None:
    out = tmp_path / "a" / "b"
    me = f"in use by another bart command \\(process {os.getpid()} on "
    with pytest.raises(UsageError, match=me):
        write("twice", out)
    assert not out.parent.exists()  # nothing was written, so nothing remains
    assert write("once", out=out) == "once"
    with (
        locked_path(tmp_path / "file.txt", Reporter()),
        pytest.raises(UsageError, match=me),
        locked_path(tmp_path / "file.txt", Reporter()),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_its_creator_removes_is_created_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, really_open = tmp_path / "a", os.open

    def late(path: Path, *arguments: int) -> int:
        monkeypatch.setattr(os, "open", really_open)
        out.rmdir()
        return os.open(path, *arguments)

    monkeypatch.setattr(os, "open", late)
    assert write("once", out=out) == "once"


def test_neither_a_killed_command_nor_a_forked_child_keeps_the_lock(
    tmp_path: Path, impatient: None
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert f"process {process.pid} on " in (holder(tmp_path) or "")
        with pytest.raises(UsageError, match=str(process.pid)), locked_folder(tmp_path, Reporter()):
            pass
        process.kill()
    assert (tmp_path / ".lock").is_file()  # the file remains, but not the lock
    assert holder(tmp_path) is None
    with locked_folder(tmp_path, Reporter()):
        child = os.fork()
        if not child:
            signal.pause()
    try:
        assert holder(tmp_path) is None
        with locked_folder(tmp_path, Reporter()):
            assert holder(tmp_path) is not None
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks_is_warned_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    reporter = Warnings()
    monkeypatch.setattr(fcntl, "flock", none)
    with locked_folder(tmp_path, reporter):
        pass
    assert len(reporter.said) == 1
    assert "has no locks" in reporter.said[0]


def test_a_lock_that_another_machine_may_still_hold_is_warned_about(tmp_path: Path) -> None:
    """NFS may keep locks to one machine, so taking the lock proves nothing about another."""
    reporter = Warnings()
    for host, warnings in ((socket.gethostname(), 0), ("node17", 1)):
        (tmp_path / ".lock").write_text(f"process 7 on {host}\n")
        with locked_folder(tmp_path, reporter):
            assert len(reporter.said) == warnings
    assert "in use by another bart command (process 7 on node17)" in reporter.said[0]


def test_a_folder_where_no_file_can_be_created_is_not_tried_forever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(locks, "RETRY_SECONDS", 0.0)
    with pytest.raises(FileNotFoundError), locked_path(Path("/proc/summary.txt"), Reporter()):
        pass
