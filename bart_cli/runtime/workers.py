"""Worker processes that are spawned, end with their parent, and print nothing when killed."""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from threading import Thread
from typing import Any

from bart_cli.errors import BartError
from bart_cli.runtime.interrupts import start_resource_tracker, withheld

PARENT = "BART_PARENT"  # environment variable: pid of the command that started this process


class _Pool(ProcessPoolExecutor):
    """Pool whose processes, which start when work is submitted, have the signals blocked."""

    def submit(self, *arguments: Any, **more: Any) -> Future[Any]:
        with withheld():
            return super().submit(*arguments, **more)


@contextmanager
def worker_processes(workers: int) -> Iterator[Executor]:
    """Make an executor of spawned processes; an error or Ctrl-C cancels queued work.

    Forking a process with threads (torch, downloads) copies their locks in any state, and the
    child may hang; hence the processes are spawned.
    """
    start_resource_tracker()
    context = multiprocessing.get_context("spawn")
    with _Pool(workers, context, initializer=_start, initargs=(os.getpid(),)) as pool:
        try:
            yield pool
        except BrokenProcessPool:
            raise BartError(
                "a worker process was killed (out of memory?)", hint="Use fewer workers."
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            kill_workers()
            raise


def kill_workers() -> None:
    """Kill the processes of every pool, so that no thread waits for their results."""
    for process in multiprocessing.active_children():
        process.kill()


def as_child(environment: dict[str, str]) -> dict[str, str]:
    """Return the environment for a child command that is to end with this process."""
    return environment | {PARENT: str(os.getpid())}


def adopt_parent() -> None:
    """End with the parent command if it started this process with `as_child`."""
    if parent := os.environ.pop(PARENT, None):
        end_with_parent(int(parent))


def end_with_parent(parent: int) -> None:
    """Kill this process within a second after its parent (a pid) ends, even if that was killed.

    A thread polls the parent. PR_SET_PDEATHSIG would fire when the *thread* that started this
    process ends, and download threads end before the command does.
    """
    Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)


def _start(parent: int) -> None:
    # `withheld` has blocked SIGTERM, which the pool uses to terminate its processes.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    end_with_parent(parent)
