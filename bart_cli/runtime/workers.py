"""Processes that start clean, stop without a word and end with the process that started them."""

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
    """Starts its processes when work is submitted."""

    def submit(self, *arguments: Any, **more: Any) -> Future[Any]:
        with withheld():
            return super().submit(*arguments, **more)


@contextmanager
def worker_processes(workers: int) -> Iterator[Executor]:
    """An executor of spawned processes; an error or Ctrl-C does not wait for queued work.

    A forked copy of a process with threads in it (torch, downloads) copies their locks in
    whatever state they are, and may hang: these start clean.

    Raises:
        BartError: one of the processes was killed.
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
    """End the processes of every pool, so that no thread waits for their work."""
    for process in multiprocessing.active_children():
        process.kill()


def as_child(environment: dict[str, str]) -> dict[str, str]:
    """The environment of a command that this process starts, and that ends with it."""
    return environment | {PARENT: str(os.getpid())}


def adopt_parent() -> None:
    """End with the command that started this process, if one did: see `as_child`."""
    if parent := os.environ.pop(PARENT, None):
        end_with_parent(int(parent))


def end_with_parent(parent: int) -> None:
    """End this process within a second after its parent (a pid), even one that was killed.

    A thread watches the parent. PR_SET_PDEATHSIG would fire when the *thread* that started this
    process ends, and download threads end before their run does.
    """
    Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)


def _start(parent: int) -> None:
    # Of what is withheld, the pool needs SIGTERM to end us.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    end_with_parent(parent)
