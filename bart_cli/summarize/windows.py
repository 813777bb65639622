"""Split an infinite stream into lists that fit in memory."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

BATCHES = 4  # per window at most; in a window, texts of similar length are batched together
HEAVIEST = 4 * 2**20  # weight (characters) at which a window is full


def windows(
    items: Iterable[Item], batch_size: int, weight: Callable[[Item], int]
) -> Iterator[list[Item]]:
    """Yield the items in lists, in order.

    The lists have 1, 2, 4 … items, so that the first results come soon, up to `BATCHES` batches;
    with a batch size of 1, always one item. A list that weighs HEAVIEST ends early.
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
