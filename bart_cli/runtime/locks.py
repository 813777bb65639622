"""Lock an output, so that a second command with the same output is refused.

The lock is taken with flock(2) on OUT/.lock, or on .NAME.lock next to a file, and ends with its
process: a killed command may leave the file behind, but not the lock. The file names the holder.
"""

import errno
import fcntl
import functools
import inspect
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

from bart_cli.errors import BartError, UsageError
from bart_cli.files import require_folder
from bart_cli.progress import Reporter

RETRY_SECONDS = 2.0  # a requeued job may start shortly before its predecessor ends
NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}  # flock not supported
NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS}

P = ParamSpec("P")
T = TypeVar("T")

_held: set[int] = set()  # file descriptors


def _close_all() -> None:
    while _held:
        os.close(_held.pop())


# The lock lasts until every copy of its descriptor is closed.
os.register_at_fork(after_in_child=_close_all)


def exclusive(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function to hold the lock of its argument `out`, a folder, while it runs."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def run(*arguments: P.args, **named: P.kwargs) -> T:
        given = signature.bind(*arguments, **named).arguments
        with locked_folder(given["out"], given.get("reporter") or Reporter()):
            return function(*arguments, **named)

    return run


@contextmanager
def locked_folder(folder: Path, reporter: Reporter) -> Iterator[None]:
    """Hold the lock of a folder. The folder is created, and removed if it stays empty."""
    require_folder(folder)
    with _created(folder), _locked(folder / ".lock", folder, reporter):
        yield


def require_free(folder: Path) -> None:
    """Check that a folder could be locked and written, without writing anything."""
    require_folder(folder)
    if name := holder(folder):
        raise _in_use(folder, name)
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    code = 0 if os.access(nearest, os.W_OK | os.X_OK) else errno.EACCES
    if code := code if nearest.is_dir() else errno.ENOTDIR:
        raise BartError(f"{folder}: {os.strerror(code)}")


def _in_use(out: Path, name: str) -> UsageError:
    return UsageError(
        f"{out} is in use by another bart command ({name or 'which has just started'})",
        hint="Wait until it has ended, or choose another --out.",
    )


@contextmanager
def locked_path(path: Path, reporter: Reporter) -> Iterator[None]:
    """Hold the lock of a file, or of a folder that is written atomically."""
    with _created(path.parent), _locked(path.with_name(f".{path.name}.lock"), path, reporter):
        yield


def holder(folder: Path) -> str | None:
    """Return a description of the process that holds the lock of a folder, or None."""
    try:
        descriptor = os.open(folder / ".lock", os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(descriptor) or "another process"
    except OSError:
        pass
    finally:
        os.close(descriptor)
    return None


@contextmanager
def _created(folder: Path) -> Iterator[None]:
    """Create a folder and its parents; on exit, remove those that are still empty."""
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for path in created:
            try:
                path.rmdir()
            except OSError:
                break


@contextmanager
def _locked(path: Path, out: Path, reporter: Reporter) -> Iterator[None]:
    try:
        descriptor = _acquire(path, out, reporter)
    except OSError as error:
        if error.errno in NO_LOCKS:
            reporter.warn(
                f"the file system of {out} has no locks: do not run two commands with this --out"
            )
        elif error.errno not in NOT_WRITABLE:  # writing the output gives a better error
            raise
        yield
        return
    _held.add(descriptor)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is locked: see `_acquire`
        _held.discard(descriptor)
        os.close(descriptor)


def _acquire(path: Path, out: Path, reporter: Reporter) -> int:
    """Open and lock the file, and return its descriptor."""
    deadline = time.monotonic() + RETRY_SECONDS
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:  # another command created the folder, ended and removed it
            if time.monotonic() > deadline:  # no file can be created there, as in /proc
                raise
            path.parent.mkdir(parents=True, exist_ok=True)
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_current(path, descriptor):
                before, host = _holder(descriptor), socket.gethostname()
                if before and not before.endswith(f" on {host}"):
                    reporter.warn(
                        f"{out} was in use by another bart command ({before}). If that is still "
                        "running, stop it: this file system does not share locks between machines"
                    )
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"process {os.getpid()} on {host}\n".encode(), 0)
                return descriptor
        except BlockingIOError:
            if time.monotonic() > deadline:
                name = _holder(descriptor)
                os.close(descriptor)
                raise _in_use(out, name) from None
            time.sleep(0.1)
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    """Read the description of a lock's holder; empty if there is none."""
    return os.pread(descriptor, 300, 0).decode(errors="replace").strip()


def _is_current(path: Path, descriptor: int) -> bool:
    """Return whether `path` is still the open file: the previous holder may have removed it."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
