"""A bounded queue of texts, and the worker processes that decode them.

A text goes to an idle worker, or joins texts with equal settings that a worker is decoding. Results
do not depend on the batch, so each text gets the same summary as from `bart summarize`.
"""

import asyncio
import contextlib
import itertools
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from bart_cli.errors import BartError
from bart_cli.runtime.cores import threads_of_each
from bart_cli.serve.worker import Failure, Load, Order, Reply, Results, Served, Settings, Text, work

ATTEMPTS = 2  # a text whose worker died is retried once, alone
SLOWEST_RESTART = 30.0  # seconds between starts of a worker that dies while loading
MAX_WAITING = 256 * 2**20  # characters of all texts in the queue


class QueueFullError(Exception):
    """The queue is full. The argument is the time after which to try again, in seconds."""


@dataclass(eq=False)
class Job:
    """A text to decode."""

    text: str
    settings: Settings
    # a record or a Failure; canceled when the client has left
    result: asyncio.Future[dict[str, object] | Failure]
    overlap: bool = False  # whether to compare the text with its summary
    attempts: int = 0  # number of workers that died while decoding it
    sent: float = 0.0  # time at which it was sent to a worker


@dataclass(eq=False)
class Worker:
    """A worker process."""

    process: SpawnProcess
    pipe: Connection
    # messages to send; None ends the thread that sends them
    orders: queue.SimpleQueue[Order | None] = field(default_factory=queue.SimpleQueue)
    # its messages in order; the last one is an EOFError
    replies: asyncio.Queue[Reply | EOFError] = field(default_factory=asyncio.Queue)
    jobs: dict[int, Job] = field(default_factory=dict)  # the texts that it has, by number

    def accepts(self, job: Job, size: int) -> bool:
        """Whether a text may join the others of this worker. A retried text is decoded alone."""
        others = self.jobs.values()
        if not others:
            return True
        retried = any(other.attempts for other in (job, *others))
        same = all(other.settings.generation == job.settings.generation for other in others)
        return len(others) < size and same and not retried


class Pool:
    """Workers and the queue of texts. All methods must be called in one event loop.

    Args:
        load: loads the model, in the worker.
        workers: number of workers; None: one per GPU, or one on a CPU.
        max_queue: maximum number of texts in the queue.
        warn: called with a message about each worker that died.
    """

    def __init__(
        self,
        load: Load,
        *,
        workers: int | None = None,
        max_queue: int = 256,
        warn: Callable[[str], None],
    ) -> None:
        self.served: Served | None = None  # set by the first worker that has loaded the model
        self.error: BartError | None = None  # set if the first worker could not load the model
        self.settled = asyncio.Event()  # set when one of these two is
        self.observe: Callable[[int, float], None] = lambda size, seconds: None  # per text
        self.restarts = 0
        self.ready: list[Worker] = []  # workers that have loaded the model
        self._load, self._workers, self._max_queue = load, workers, max_queue
        self._warn = warn
        self._waiting: list[Job] = []
        self._numbers = itertools.count()
        self._tenders: list[asyncio.Task[None]] = []
        self._last_seconds = 0.0

    def start(self) -> None:
        """Start the workers; `served` is set once the model is loaded."""
        for number in range(self._workers or 1):
            self._tenders.append(asyncio.create_task(self._tend(number)))

    async def stop(self) -> None:
        """Kill the workers, even while they decode."""
        for task in self._tenders:
            task.cancel()
        await asyncio.gather(*self._tenders, return_exceptions=True)

    @property
    def waiting(self) -> int:
        return sum(not job.result.done() for job in self._waiting)

    @property
    def running(self) -> int:
        """Number of texts that workers have."""
        return sum(len(worker.jobs) for worker in self.ready)

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queue texts, all or none of them.

        Raises:
            QueueFullError: there is not enough room.
        """
        self._waiting = [job for job in self._waiting if not job.result.done()]
        letters = sum(len(job.text) for job in (*self._waiting, *jobs))
        if len(self._waiting) + len(jobs) > self._max_queue or letters > MAX_WAITING:
            size = max(1, self.served.batch_size if self.served else 1)
            batches = len(self._waiting) / size / max(1, len(self.ready))
            raise QueueFullError(min(60, 1 + int(batches * self._last_seconds)))
        self._waiting += jobs
        self._dispatch()

    def _dispatch(self) -> None:
        """Send texts to workers, oldest first.

        After a text that must wait, others join only the idle workers of before, so that a worker
        becomes idle for it.
        """
        size = self.served.batch_size if self.served else 1
        open_to_all, chosen = self.ready, [worker for worker in self.ready if not worker.jobs]
        orders: dict[Worker, list[Text]] = {}
        waiting = []
        for job in self._waiting:
            if job.result.done():
                continue
            fitting = [worker for worker in open_to_all if worker.accepts(job, size)]
            if not fitting:
                open_to_all = chosen
                waiting.append(job)
                continue
            worker = min(fitting, key=lambda each: len(each.jobs))
            number = next(self._numbers)
            worker.jobs[number], job.sent = job, time.monotonic()
            text = Text(number, job.text, job.settings, job.overlap)
            orders.setdefault(worker, []).append(text)
            job.result.add_done_callback(partial(_cancel, worker, number))
        self._waiting = waiting
        for worker, texts in orders.items():
            worker.orders.put(texts)

    async def _tend(self, number: int) -> None:
        """Keep one worker alive and busy."""
        deaths = 0
        while True:
            worker = self._spawn(number)
            try:
                first = await worker.replies.get()
                if isinstance(first, Served):
                    deaths = 0
                    self._welcome(worker, first)
                    while not isinstance(reply := await worker.replies.get(), EOFError):
                        assert isinstance(reply, dict)
                        self._finish(worker, reply)
                elif self.served is None:
                    died = BartError("the worker died while loading the model")
                    self.error = first if isinstance(first, BartError) else died
                    self.settled.set()
                    return
                reason = first.message if isinstance(first, BartError) else "it was killed"
            finally:
                self.ready = [other for other in self.ready if other is not worker]
                worker.process.kill()
                self._return(list(worker.jobs.values()))
            deaths += 1
            self.restarts += 1
            self._warn(f"restarting worker {number}: {reason}")
            await asyncio.sleep(min(SLOWEST_RESTART, 2.0**deaths / 4))

    def _spawn(self, number: int) -> Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        workers = self._workers or 1
        threads = threads_of_each(workers) if workers > 1 else None
        process = context.Process(
            target=work, args=(theirs, number, threads, os.getpid(), self._load), daemon=True
        )
        # Ctrl-C in a terminal also reaches the new process, maybe before it has ignored the signal.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        process.start()
        signal.signal(signal.SIGINT, handler)
        theirs.close()
        worker = Worker(process, ours)
        arguments = (worker, asyncio.get_running_loop())
        threading.Thread(target=_exchange, args=arguments, daemon=True).start()
        return worker

    def _welcome(self, worker: Worker, served: Served) -> None:
        """Register a worker that has loaded the model; the first one reports the number of GPUs."""
        self.served = self.served or served
        self.settled.set()
        self.ready.append(worker)
        if self._workers is None:
            self._workers = max(1, served.gpus)
            for other in range(1, self._workers):
                self._tenders.append(asyncio.create_task(self._tend(other)))
        self._dispatch()

    def _finish(self, worker: Worker, results: Results) -> None:
        again = []
        for number, result in results.items():
            size, job = len(worker.jobs), worker.jobs.pop(number)
            if isinstance(result, Failure) and result.shared:
                again.append(job)
            elif result is not None:
                self._last_seconds = time.monotonic() - job.sent
                self.observe(size, self._last_seconds)
                if not job.result.done():
                    job.result.set_result(result)
        self._return(again)

    def _return(self, jobs: Sequence[Job]) -> None:
        """Return texts to the head of the queue; fail those that have already been retried."""
        again = []
        for job in jobs:
            job.attempts += 1
            if job.result.done():
                continue
            if job.attempts < ATTEMPTS:
                again.append(job)
            else:
                job.result.set_result(Failure(503, "the worker died twice on this text"))
        self._waiting = again + self._waiting
        self._dispatch()


def _cancel(worker: Worker, number: int, _: object) -> None:
    """Tell the worker that the client has left; the worker answers when it has stopped."""
    if number in worker.jobs:
        worker.orders.put(number)


def _exchange(worker: Worker, loop: asyncio.AbstractEventLoop) -> None:
    """Forward messages between the event loop and a worker until it ends. Runs in a thread."""
    # Sending has its own thread, because a worker that decodes reads slowly.
    sender = threading.Thread(target=_send, args=(worker,), daemon=True)
    sender.start()
    with contextlib.suppress(EOFError, OSError, RuntimeError):  # the loop is closed
        while True:
            message = worker.pipe.recv()
            loop.call_soon_threadsafe(worker.replies.put_nowait, message)
    worker.orders.put(None)
    sender.join()
    worker.pipe.close()
    worker.process.join()
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(worker.replies.put_nowait, EOFError())


def _send(worker: Worker) -> None:
    with contextlib.suppress(OSError):
        while (order := worker.orders.get()) is not None:
            worker.pipe.send(order)
