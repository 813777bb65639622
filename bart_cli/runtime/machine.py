"""Do work once per machine: one rank writes a file that all ranks of the machine read.

In: a function that writes a file and one that reads it, preferably by mapping it into memory. Out:
the result of reading, on every rank.
"""

import fcntl
import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TypeVar

from bart_cli.errors import BartError
from bart_cli.runtime.world import World

Item = TypeVar("Item")
PROC = Path("/proc")


def once_per_machine(
    world: World, write: Callable[[IO[bytes]], None], read: Callable[[str], Item]
) -> Item:
    """Let one rank of each machine write a temporary file that all of its ranks read by its path.

    The file has no name, so it disappears when the last rank closes it or is killed. The other
    ranks wait for its lock, because a collective call could time out. If any rank cannot write or
    open the file, all raise its BartError.
    """
    machines = world.gather_all(_machine(world.rank))
    writer = machines.index(machines[world.rank])
    problem: BartError | None = None
    file: IO[bytes]
    with ExitStack() as stack:
        link = ""
        if world.rank == writer:
            file = stack.enter_context(tempfile.TemporaryFile())
            fcntl.flock(file, fcntl.LOCK_EX)
            link = f"/proc/{os.getpid()}/fd/{file.fileno()}"
        link = world.gather_all(link)[writer]
        try:
            if world.rank == writer:
                try:
                    write(file)
                    file.flush()
                finally:
                    fcntl.flock(file, fcntl.LOCK_UN)
                link = f"/dev/fd/{file.fileno()}"
            else:
                file = stack.enter_context(Path(link).open("rb"))
                fcntl.flock(file, fcntl.LOCK_SH)  # held by the writer until it is done, or dead
        except BartError as error:
            problem = error
        except OSError as error:
            where = error.filename or tempfile.gettempdir()
            problem = BartError(f"{where}: {error.strerror or error}")
        for first in filter(None, world.gather_all(problem)):
            raise first
        item = read(link)
        world.barrier()  # until the others have opened the link
        return item


def _machine(rank: int) -> str:
    """Return a string that is equal for ranks that can open each other's files through /proc."""
    try:
        boot = (PROC / "sys" / "kernel" / "random" / "boot_id").read_text()
        return boot + str((PROC / "self" / "ns" / "pid").readlink())
    except OSError:  # not Linux: each rank writes its own file
        return str(rank)
