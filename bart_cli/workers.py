"""Pools of worker processes that start clean and stop without a word."""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from threading import Thread

from bart_cli.errors import BartError


@contextmanager
def worker_processes(workers: int) -> Iterator[Executor]:
    """An executor of spawned processes; an error or Ctrl-C does not wait for queued work.

    A forked copy of a process with threads in it (torch, downloads) copies their locks in
    whatever state they are, and may hang: these start clean.

    Raises:
        BartError: one of the processes was killed.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_start, initargs=(os.getpid(),)) as pool:
        try:
            yield pool
        except BrokenProcessPool:
            raise BartError(
                "a worker process was killed (out of memory?)", hint="try fewer of them"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


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
    # Ctrl-C reaches the whole process group; the parent alone has something to say about it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    end_with_parent(parent)
