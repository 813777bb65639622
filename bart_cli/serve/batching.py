"""A bounded queue of texts, and the worker processes that decode them in batches.

An idle worker takes the oldest text in the queue, with others of equal settings and similar length.
Results do not depend on the batch, so each text gets the same summary as from `bart summarize`.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from bart_cli.errors import BartError
from bart_cli.runtime.cores import threads_of_each
from bart_cli.serve.worker import Batch, Failure, Load, Reply, Served, Settings, work

SIMILAR = 3.0  # largest ratio of lengths between the oldest text of a batch and the others
LETTERS_PER_TOKEN = 5  # estimate; beyond source_length times this, texts are truncated alike
ATTEMPTS = 2  # a text whose worker died is retried once, alone
LINGER = 0.1  # share of the last batch's time to wait for the next texts of the same clients
LONGEST_LINGER = 0.05  # seconds
SLOWEST_RESTART = 30.0  # seconds between starts of a worker that dies while loading
STOP_AGAIN = 0.5  # seconds between signals to a worker whose clients have all left
MAX_WAITING = 256 * 2**20  # characters of all texts in the queue


class QueueFullError(Exception):
    """The queue is full. seconds: time after which to try again."""

    def __init__(self, seconds: int) -> None:
        super().__init__()
        self.seconds = seconds


@dataclass(eq=False)
class Job:
    """A text to decode.

    Attributes:
        result: a record or a Failure; canceled when the client has left.
        overlap: whether to compare the text with its summary.
        attempts: number of workers that died while decoding it.
    """

    text: str
    settings: Settings
    result: asyncio.Future[dict[str, object] | Failure]
    overlap: bool = False
    attempts: int = 0


@dataclass(eq=False)
class Worker:
    """A process, its pipe, and its replies in order; the last one is an EOFError."""

    process: SpawnProcess
    pipe: Connection
    replies: asyncio.Queue[Reply | EOFError] = field(default_factory=asyncio.Queue)
    jobs: list[Job] = field(default_factory=list)


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
        self.observe: Callable[[int, float], None] = lambda size, seconds: None  # per batch
        self.restarts = 0
        self.ready: set[int] = set()
        self._load, self._workers, self._max_queue = load, workers, max_queue
        self._warn = warn
        self._waiting: list[Job] = []
        self._arrived = asyncio.Event()
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
        """Number of texts in the queue."""
        return sum(not job.result.done() for job in self._waiting)

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
        self._arrived.set()

    async def _take(self, size: int, source_length: int) -> list[Job]:
        """Wait for a text, and return the next batch."""
        while True:
            self._waiting = [job for job in self._waiting if not job.result.done()]
            if self._waiting:
                break
            self._arrived.clear()
            await self._arrived.wait()
        first = self._waiting[0]
        chosen = [first]
        if not first.attempts:
            longest = source_length * LETTERS_PER_TOKEN

            def length(job: Job) -> int:
                # The pieces of a long text are decoded like separate texts.
                letters = len(job.text)
                return letters if job.settings.long != "truncate" else min(letters, longest)

            base = max(1, length(first))
            similar = [
                job
                for job in self._waiting[1:]
                if job.settings == first.settings
                and not job.attempts
                and base / SIMILAR <= max(1, length(job)) <= base * SIMILAR
            ]
            similar.sort(key=lambda job: abs(length(job) - base))
            # A text of many pieces is decoded alone, so that it can be canceled alone.
            alone = first.settings.long != "truncate" and base > longest
            chosen += [] if alone else similar[: size - 1]
        self._waiting = [job for job in self._waiting if job not in set(chosen)]
        return chosen

    async def _tend(self, number: int) -> None:
        """Keep one worker alive and busy."""
        deaths = 0
        while True:
            worker = self._spawn(number)
            try:
                first = await worker.replies.get()
                if isinstance(first, Served):
                    deaths = 0
                    self._welcome(number, first)
                    await self._feed(worker, first)
                elif self.served is None:
                    died = BartError("the worker died while loading the model")
                    self.error = first if isinstance(first, BartError) else died
                    self.settled.set()
                    return
                reason = first.message if isinstance(first, BartError) else "it was killed"
            finally:
                self.ready.discard(number)
                worker.process.kill()
                worker.pipe.close()
                self._return(worker.jobs)
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
        loop = asyncio.get_running_loop()
        arguments = (ours, process, loop, worker.replies)
        threading.Thread(target=_read, args=arguments, daemon=True).start()
        return worker

    def _welcome(self, number: int, served: Served) -> None:
        """Register a worker that has loaded the model; the first one reports the number of GPUs."""
        self.served = self.served or served
        self.settled.set()
        self.ready.add(number)
        if self._workers is None:
            self._workers = max(1, served.gpus)
            for other in range(1, self._workers):
                self._tenders.append(asyncio.create_task(self._tend(other)))

    async def _feed(self, worker: Worker, served: Served) -> None:
        """Give a worker one batch after another until it dies."""
        death = asyncio.create_task(worker.replies.get())
        while True:
            take = asyncio.create_task(self._take(served.batch_size, served.source_length))
            try:
                await asyncio.wait({take, death}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not take.done():
                    take.cancel()
                else:
                    worker.jobs = take.result()
            if death.done():
                return
            reply, began = death, time.monotonic()
            jobs = worker.jobs
            batch = Batch(
                tuple(job.text for job in jobs),
                tuple(job.overlap for job in jobs),
                jobs[0].settings,
            )

            def stop(_: object = None, jobs: list[Job] = jobs) -> None:
                if all(job.result.done() for job in jobs) and worker.jobs is jobs:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(worker.process.pid or 0, signal.SIGUSR1)
                    # The worker ignores the signal until it has started the batch, so repeat it.
                    asyncio.get_running_loop().call_later(STOP_AGAIN, stop)

            try:
                await asyncio.get_running_loop().run_in_executor(None, worker.pipe.send, batch)
            except OSError:
                return
            for job in jobs:
                job.result.add_done_callback(stop)
            content = await reply
            if isinstance(content, EOFError):
                return
            worker.jobs = []
            death = asyncio.create_task(worker.replies.get())
            self._last_seconds = time.monotonic() - began
            self._finish(jobs, content)
            await asyncio.sleep(min(LONGEST_LINGER, LINGER * self._last_seconds))

    def _finish(self, jobs: list[Job], content: object) -> None:
        if isinstance(content, list):
            self.observe(len(jobs), self._last_seconds)
            for job, record in zip(jobs, content, strict=True):
                if not job.result.done():
                    job.result.set_result(record)
        elif isinstance(content, Failure) and len(jobs) == 1:
            if not jobs[0].result.done():
                jobs[0].result.set_result(content)
        else:  # a single text may have caused the error: retry each one alone
            self._return(jobs)

    def _return(self, jobs: list[Job]) -> None:
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
        jobs.clear()
        self._waiting = again + self._waiting
        self._arrived.set()


def _read(
    pipe: Connection,
    process: SpawnProcess,
    loop: asyncio.AbstractEventLoop,
    replies: asyncio.Queue[Reply | EOFError],
) -> None:
    """Forward the messages of a worker to the event loop. Runs in a thread."""
    try:
        while True:
            message = pipe.recv()
            loop.call_soon_threadsafe(replies.put_nowait, message)
    except (EOFError, OSError):
        pass
    process.join()
    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(replies.put_nowait, EOFError())
