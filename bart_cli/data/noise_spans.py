"""Random spans of words to mask, vectorized over a batch.

In: the number of words of each sample, and random keys. Out: `Spans`.
"""

# Legend: B samples, W words of the longest sample, I items of the longest sample (kept words,
# spans, insertions), K spans or insertions of the batch.

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import exp

import numpy as np
from numpy.typing import NDArray

from bart_cli.data.random_keys import Keys, Purpose, derive, uniform

Ids = NDArray[np.int64]

LAST = np.uint64(2**64 - 1)


@dataclass(frozen=True)
class Spans:
    """Spans of words, in order."""

    words: Ids  # [K] index of the first word; for a span of length 0, of the word after it
    widths: Ids  # [K] number of words
    ranks: Ids  # [K] rank among the spans of the sample
    owners: Ids  # [K] index of the sample


def starts_of(lengths: Ids) -> Ids:
    """Return the start of each row, for concatenated rows of these lengths.

    >>> starts_of(np.array([2, 0, 3])).tolist()
    [0, 2, 2]
    """
    starts: Ids = np.cumsum(lengths) - lengths
    return starts


def single_spans(wanted: Ids) -> tuple[Ids, Ids]:
    """Lengths [B, I] of single-word spans, padded with zeros, and their number [B]."""
    return (np.arange(wanted.max(initial=0))[None] < wanted[:, None]).astype(np.int64), wanted


def poisson_spans(wanted: Ids, keys: Keys, rate: float) -> tuple[Ids, Ids]:
    """Draw spans until they cover the wanted words, and truncate the last one.

    Example: for 5 words and draws of 2, 0, 4, …, the span lengths are 2, 0, 3.

    Returns:
        the same as `single_spans`.
    """
    draws = int(wanted.max(initial=0) / rate * 1.5) + 12
    table = poisson_table(rate)
    while True:
        index = np.arange(draws, dtype=np.uint64)
        numbers = uniform(keys[:, None], Purpose.SPAN, index[None, :])
        lengths = np.searchsorted(table, numbers, side="right")
        covered = np.cumsum(lengths, axis=1)
        if (covered[:, -1] >= wanted).all():
            break
        draws *= 2  # rare: many short spans
    before = covered - lengths
    used = before < wanted[:, None]
    lengths = np.where(used, np.minimum(lengths, wanted[:, None] - before), 0)
    return lengths, used.sum(1)


@cache
def poisson_table(rate: float) -> NDArray[np.float64]:
    """Tabulate P(length <= k), k = 0, 1, …; the index of the first entry above u is a sample."""
    probability, cumulative, table = exp(-rate), 0.0, []
    for k in range(1, int(rate * 4) + 40):
        cumulative += probability
        table.append(cumulative)
        probability *= rate / k
    return np.array(table)


def disjoint_spans(rows: Ids, lengths: Ids, counts: Ids, keys: Keys) -> Spans:
    """Order spans and kept words at random and assign the words to them from left to right.

    Args:
        rows: [B + 1] index of the first word of each sample, and the number of words.
        lengths: [B, I] span lengths.
        counts: [B] number of spans.
    """
    items = counts + np.diff(rows) - lengths.sum(1)
    order = np.argsort(_random_places(keys, items), axis=1)
    places = np.flatnonzero(order < counts[:, None])
    owners = np.repeat(np.arange(len(keys)), counts)
    widths = lengths[owners, order.ravel()[places]]
    return assign_words(places, order.shape[1], owners, counts, widths, rows)


def assign_words(
    places: Ids, items: int, owners: Ids, counts: Ids, widths: Ids, rows: Ids
) -> Spans:  # fmt: skip
    """Assign the words of each sample to its ordered items, spans and kept words.

    Example: a sample of 5 words has the items kept, span of 2, kept, span of 0, kept. With
    `places` 1 3 and `widths` 2 0, the spans start at the words 1 and 4: two kept words and the two
    words of the first span precede the second span.

    Args:
        places: [K] flat indices of the spans in [B, `items`].
        owners: [K] index of the sample.
        counts: [B] number of spans.
        widths: [K] span lengths.
        rows: as in `disjoint_spans`.
    """
    begins = starts_of(counts)[owners]  # the first span of the sample
    ranks = np.arange(len(places)) - begins
    before = starts_of(widths)
    words = rows[owners] + places - owners * items - ranks + before - before[begins]
    return Spans(words, widths, ranks, owners)


def overlapping_spans(rows: Ids, lengths: Ids, keys: Keys, *, keep_each: bool) -> Spans:
    """Start spans at distinct random words; a span may overlap the next one, as in fairseq.

    Example: the words a b c d e f and spans of lengths 3 and 2. Random numbers order the words, say
    b c …. The first span starts at b and covers b c d, the second starts at c and covers c d. The
    result is one span at b and the kept words a e f: the second span is swallowed.

    Args:
        rows: as in `disjoint_spans`.
        lengths: [B, I] span lengths; spans of length 0 are skipped.
        keep_each: return a span for each word of a span instead of one for the whole span.
    """
    words = np.diff(rows)
    width = int(words.max(initial=0))
    column = np.arange(width)[None]
    rank = random_ranks(keys, words)
    compact = np.take_along_axis(lengths, np.argsort(lengths == 0, axis=1, kind="stable"), 1)
    spans = np.zeros((len(keys), width), dtype=np.int64)
    drawn = min(compact.shape[1], width)
    spans[:, :drawn] = compact[:, :drawn]
    spans = np.take_along_axis(spans, rank, 1)  # [B, W] length of the span that begins here
    reach = np.maximum.accumulate(np.where(spans > 0, column + spans, 0), axis=1)
    inside = np.zeros_like(reach, dtype=bool)
    inside[:, 1:] = reach[:, :-1] > column[:, 1:]
    number = np.where(inside | (spans > 0), np.cumsum(spans > 0, axis=1) - 1, -1)
    real = column < words[:, None]
    if not keep_each:
        real &= ~inside
    word, number = (column + rows[:-1, None])[real], number[real]
    owners = np.repeat(np.arange(len(keys)), real.sum(1))
    widths = np.diff(np.append(word, rows[-1]))
    is_span = number >= 0
    return Spans(word[is_span], widths[is_span], number[is_span], owners[is_span])


def _random_places(keys: Keys, counts: Ids) -> Keys:
    """[B, I] random number for each item; the largest integer beyond a row's count."""
    column = np.arange(counts.max(initial=0))[None]
    place = derive(keys[:, None], Purpose.PLACE, column.astype(np.uint64)) >> np.uint64(1)
    place[column >= counts[:, None]] = LAST
    return place


def random_ranks(keys: Keys, counts: Ids) -> Ids:
    """[B, I] rank of each item in a random order of its row."""
    return np.argsort(np.argsort(_random_places(keys, counts), axis=1), axis=1)
