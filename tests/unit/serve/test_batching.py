"""The queue: which worker gets a text, and when. No worker is started."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from unittest.mock import MagicMock

import pytest

from bart_cli.config.generation import GenerationConfig

pytest.importorskip("starlette", reason="the extra 'serve' is not installed")
from bart_cli.serve.batching import Job, Pool, Worker
from bart_cli.serve.worker import Failure, Order, Results, Served, Settings

SERVED = Served("fp32", "cpu", 64, 64, 100, GenerationConfig(max_length=12), 3, 1)
A, B = (Settings(GenerationConfig(max_length=12, beams=beams)) for beams in (1, 2))


class Queue:
    """A pool with workers that never answer by themselves."""

    def __init__(self, workers: int = 1) -> None:
        self.pool = Pool(MagicMock(), warn=print)
        self.pool.served = SERVED
        self.workers = [Worker(MagicMock(), MagicMock()) for _ in range(workers)]
        self.pool.ready = self.workers

    def submit(self, text: str, settings: Settings = A) -> Job:
        job = Job(text, settings, asyncio.get_running_loop().create_future())
        self.pool.submit([job])
        return job

    def has(self, number: int = 0) -> str:
        return "".join(job.text for job in self.workers[number].jobs.values())

    def end(self, text: str, result: dict[str, object] | Failure | None) -> None:
        """Let a worker end a text."""
        for worker in self.workers:
            ended: Results = {n: result for n, job in worker.jobs.items() if job.text in text}
            self.pool._finish(worker, ended)

    def orders(self) -> list[Order | None]:
        orders = self.workers[0].orders
        return [orders.get() for _ in range(orders.qsize())]


def in_loop(test: Callable[[], None]) -> None:
    async def run() -> None:
        test()

    asyncio.run(run())


def test_texts_with_equal_settings_join_a_busy_worker_and_none_is_overtaken_forever() -> None:
    def test() -> None:
        queue = Queue()
        queue.submit("a")
        queue.submit("b")
        assert queue.has() == "ab"
        queue.submit("c", B)
        queue.submit("d")
        assert (queue.has(), queue.pool.waiting) == ("ab", 2)  # c waits, so d must not join
        queue.end("a", {})
        assert queue.has() == "b"
        queue.end("b", {})
        assert queue.has() == "c"
        for text in "efgh":
            queue.submit(text)
        queue.end("c", {})
        assert (queue.has(), queue.pool.waiting) == ("def", 2)  # as many as fit

    in_loop(test)


def test_an_idle_worker_is_preferred() -> None:
    def test() -> None:
        queue = Queue(workers=2)
        for text in "abc":
            queue.submit(text)
        queue.submit("d", B)
        assert (queue.has(0), queue.has(1)) == ("ac", "b")
        queue.end("b", {})
        assert (queue.has(0), queue.has(1)) == ("ac", "d")

    in_loop(test)


def test_after_an_error_that_others_may_have_caused_each_text_is_decoded_alone() -> None:
    def test() -> None:
        queue = Queue()
        jobs = [queue.submit(text) for text in "ab"]
        queue.end("ab", Failure(500, "broken", shared=True))
        queue.submit("c")
        assert queue.has() == "a"
        queue.end("a", Failure(500, "broken"))
        assert jobs[0].result.result() == Failure(500, "broken")
        assert queue.has() == "b"
        queue.end("b", {"summary": "fine"})
        assert jobs[1].result.result() == {"summary": "fine"}
        assert queue.has() == "c"

    in_loop(test)


def test_a_canceled_text_keeps_its_place_until_the_worker_has_stopped() -> None:
    """Otherwise clients that come and go would fill the pipe to a slow worker."""

    async def test() -> None:
        queue = Queue()
        jobs = [queue.submit(text) for text in "abcd"]
        sent = queue.orders()
        assert [text.number for order in sent if isinstance(order, list) for text in order] == [
            *queue.workers[0].jobs
        ]
        jobs[1].result.cancel()
        jobs[3].result.cancel()
        await asyncio.sleep(0)
        assert queue.orders() == [1]
        assert (queue.has(), queue.pool.waiting) == ("abc", 0)
        queue.end("b", None)
        queue.submit("e")
        assert queue.has() == "ace"

    asyncio.run(test())
