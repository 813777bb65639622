"""An endless stream in lists that fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

BATCHES = 4  # in the largest window: texts of like length are decoded together
HEAVIEST = 4 * 2**20  # characters in a window


def windows(
    items: Iterable[Item], batch_size: int, weight: Callable[[Item], int]
) -> Iterator[list[Item]]:
    """Lists of items, in order: of 1, 2, 4 … items (so that the first results come at once), up to
    `BATCHES` batches; of 1 always when the batch is 1. One ends early when it weighs HEAVIEST.
    """
    largest = 1 if batch_size == 1 else BATCHES * batch_size
    size = 1
    window: list[Item] = []
    total = 0
    for item in items:
        window.append(item)
        total += weight(item)
        if len(window) >= size or total >= HEAVIEST:
            yield window
            window, total, size = [], 0, min(2 * size, largest)
    if window:
        yield window
