"""Ranks without processes of their own: threads that meet, and a benchmark measured right here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Barrier
from typing import TypeVar

import torch

from bart_cli.benchmark.processes import InProcess
from bart_cli.benchmark.session import Case
from bart_cli.errors import BartError
from bart_cli.runtime.world import World

Item = TypeVar("Item")


@dataclass(frozen=True)
class Thread(World):
    """A rank that meets the others in memory."""

    meeting: Barrier = field(default_factory=lambda: Barrier(1))
    table: dict[int, object] = field(default_factory=dict)

    def gather_all(self, item: Item) -> list[Item]:
        self.table[self.rank] = item
        self.meeting.wait(20)
        items = [self.table[rank] for rank in range(self.size)]
        self.meeting.wait(20)
        return items  # type: ignore[return-value]

    def barrier(self) -> None:
        self.meeting.wait(20)


def in_ranks(size: int, action: Callable[[World], Item]) -> list[Item | Exception]:
    """What each rank returns or raises."""
    meeting, table = Barrier(size), dict[int, object]()

    def run(rank: int) -> Item | Exception:
        try:
            return action(Thread(rank, size, torch.device("cpu"), meeting, table))
        except BartError as error:
            return error

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(run, range(size)))


@contextmanager
def measured_here(case: Case, world: World) -> Iterator[InProcess]:
    """Stand in for `processes_of` of a benchmark, which would start processes."""
    yield InProcess(world)
