"""Start the processes of a case, call methods of its `Session` in each, and end them.

A pipe transfers the name and arguments of a method, and its result or exception. A worker imports
torch after its environment has been set, hence the imports in functions.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from bart_cli.errors import BartError, first_line
from bart_cli.runtime.cores import threads_of_each
from bart_cli.runtime.interrupts import withheld
from bart_cli.runtime.memory import is_out_of_memory
from bart_cli.runtime.workers import end_with_parent

if TYPE_CHECKING:
    from bart_cli.benchmark.session import Case
    from bart_cli.runtime.world import World

OK, OUT_OF_MEMORY = "ok", "out of memory"


class InProcess:
    """This process as one of several ranks started by a launcher (srun, torchrun)."""

    outcome = OK

    def __init__(self, world: World) -> None:
        from bart_cli.benchmark.session import Session

        self._session, self._rank = Session(world), world.rank

    def ask(self, method: str, *arguments: object) -> list[Any]:
        """See WorkerGroup. If one rank runs out of memory, the others cannot continue."""
        try:
            return [getattr(self._session, method)(*arguments)]
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            problem = f"rank {self._rank} ran out of memory"
            raise BartError(problem, hint="Leave out this batch size.") from None


class WorkerGroup:
    """Processes of a case, started by this one; `outcome` records that memory ran out."""

    def __init__(self, side: str, log: IO[str]) -> None:
        self.workers: dict[Connection, SpawnProcess] = {}
        self.outcome = OK
        self._side, self._log = side, log

    def ask(self, method: str, *arguments: object) -> list[Any]:
        """Call a method of every rank's `Session`.

        Returns:
            the results by rank; empty since a rank ran out of memory.

        Raises:
            BartError: a rank failed in any other way.
        """
        if self.outcome != OK:
            return []
        for connection in self.workers:
            with suppress(BrokenPipeError):  # a dead worker is detected when reading
                connection.send((method, arguments))
        answers: dict[Connection, Any] = {}
        while waiting := self.workers.keys() - answers.keys():
            for connection in wait(waiting):  # type: ignore[assignment]
                try:
                    answer = connection.recv()
                except (EOFError, ConnectionResetError):
                    answer = self._death(self.workers[connection])
                # Do not wait for the other ranks: they may be blocked in a collective forever.
                if isinstance(answer, Exception):
                    codes = [process.exitcode for process in self.workers.values()]
                    if -signal.SIGKILL not in codes and not is_out_of_memory(answer):
                        raise answer
                    self.outcome = OUT_OF_MEMORY  # the kernel kills when memory is full
                    return []
                answers[connection] = answer
        return [answers[connection] for connection in self.workers]

    def _death(self, process: SpawnProcess) -> BartError:
        process.join()
        self._log.seek(0)
        words = [line.strip() for line in self._log if line.strip()]
        reason = words[-1] if words else f"exit code {process.exitcode}"
        return BartError(f"a {self._side} worker died: {reason}")


Processes = InProcess | WorkerGroup


@contextmanager
def processes_of(case: Case, world: World) -> Iterator[Processes]:
    """Start the processes of a case, and end them after the block; or use a launcher's ranks."""
    from bart_cli.runtime.launch import rank_environment, rendezvous
    from bart_cli.runtime.world import launched

    if launched():
        yield InProcess(world)
        return

    context, store, count = get_context("spawn"), rendezvous(), case.processes
    with tempfile.NamedTemporaryFile("r", errors="replace") as log:
        group = WorkerGroup(case.side, log)
        try:
            with withheld():  # the command handles signals and ends its workers
                for rank in range(count):
                    ours, theirs = context.Pipe()
                    variables = {"TOKENIZERS_PARALLELISM": "false"}
                    if count > 1:
                        variables |= rank_environment(rank, count, store.port)
                        variables["OMP_NUM_THREADS"] = threads_of_each(count)
                    arguments = theirs, os.getpid(), variables, log.name, case.side
                    group.workers[ours] = context.Process(target=_serve, args=arguments)
                    group.workers[ours].start()
                    theirs.close()
            yield group
        finally:
            for connection, process in group.workers.items():
                process.kill()
                process.join()
                connection.close()


def _serve(
    connection: Connection, parent: int, environment: dict[str, str], log: str, side: str
) -> None:
    """Run a worker: handle calls until the parent closes the pipe or ends."""
    end_with_parent(parent)
    os.environ.update(environment)
    for stream in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND), stream)
    with suppress(FileNotFoundError):  # Linux: let the kernel kill this process first
        Path("/proc/self/oom_score_adj").write_text("1000")
    from bart_cli.benchmark.session import Session
    from bart_cli.runtime.world import join_world

    with join_world() as world, suppress(EOFError):
        session = Session(world)
        while True:
            method, arguments = connection.recv()
            try:
                answer = getattr(session, method)(*arguments)
            except BartError as error:
                answer = error
            except Exception as error:
                text = f"a {side} worker failed: {type(error).__name__}: {first_line(error)}"
                answer = MemoryError() if is_out_of_memory(error) else BartError(text)
            connection.send(answer)
