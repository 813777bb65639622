"""The noising schemes of BART (Lewis et al. 2020, section 2.2), vectorized over a batch.

In: a `Text`, the random keys of its samples, and settings. Out: a new `Text`. For each output
token, a scheme computes the input token at that position (`anchors`) and the token that replaces it
(`written`, or COPY to keep it). `Text.edit` applies both and tracks the sentence and the origin of
every token, so that schemes compose in any order.

`sampling=exact` is our own: the expected share equals the configured ratio, spans never overlap,
and words are never split. `sampling=fairseq` draws as fairseq's DenoisingDataset does: counts are
rounded up, spans may overlap (which masks fewer words than `mask_ratio`), and tokens may be
inserted inside a word.
"""

# Legend: B samples, T tokens of the batch, W words of the longest sample, I items of the longest
# sample (kept words, spans, insertions).

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from math import exp

import numpy as np
from numpy.typing import NDArray

from bart_cli.config.data import DenoisingConfig
from bart_cli.data.random_keys import Keys, derive, uniform

Ids = NDArray[np.int64]
Flags = NDArray[np.bool_]

# An independent stream of random numbers for each purpose.
PERMUTE, ROUND, SPAN, PLACE, REPLACE, TOKEN, ROTATE, CUT = range(8)
COPY = -1
LAST = np.uint64(2**64 - 1)


@dataclass(frozen=True)
class Text:
    """The samples of a batch, as schemes pass them on.

    ids: [T] tokens, concatenated. lengths: [B] tokens of each sample. sentences: [T] index of each
    token's sentence in its sample. origins: [T] index of each token in the original text, -1 for
    new tokens.
    """

    ids: Ids
    lengths: Ids
    sentences: Ids
    origins: Ids

    @cached_property
    def owners(self) -> Ids:
        """[T] index of each token's sample."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    def sentence_begins(self) -> Flags:
        """[T] True at the first token of each run of tokens from one sentence."""
        owners = self.owners
        begins = np.ones(len(self.ids), dtype=bool)
        begins[1:] = (self.sentences[1:] != self.sentences[:-1]) | (owners[1:] != owners[:-1])
        return begins

    def edit(self, anchors: Ids, written: Ids, lengths: Ids) -> Text:
        """Build a text from `written` ids, or, where they are COPY, from the tokens at `anchors`.

        Args:
            anchors: [T'] index in this text for each token of the new one.
            written: [T'] id of each new token, or COPY.
            lengths: [B] tokens of each new sample.
        """
        copied = written == COPY
        return Text(
            np.where(copied, self.ids[anchors], written),
            lengths,
            self.sentences[anchors],
            np.where(copied, self.origins[anchors], -1),
        )


@dataclass(frozen=True)
class NewTokens:
    """The tokens that noise may write: <mask>, or a random ordinary token."""

    mask_id: int
    ordinary: Ids

    def draw(self, owners: Ids, is_random: Flags, keys: Keys) -> Ids:
        """Draw one token per position: a random ordinary token where `is_random`, else <mask>.

        Args:
            owners: [N] index of the sample of each position, ascending.
            is_random: [N].
            keys: [B].
        """
        drawn = np.full(len(owners), self.mask_id, dtype=np.int64)
        rank = rank_in_row(np.ones(len(owners), dtype=bool), owners)[is_random]
        number = uniform(keys[owners[is_random]], TOKEN, rank.astype(np.uint64))
        drawn[is_random] = self.ordinary[(number * len(self.ordinary)).astype(np.int64)]
        return drawn


def rank_in_row(flags: Flags, owners: Ids) -> Ids:
    """Count the flags set earlier in the same row, for each position.

    >>> rank_in_row(np.array([1, 0, 1, 1, 1], dtype=bool), np.array([0, 0, 0, 1, 1])).tolist()
    [0, 1, 1, 0, 1]
    """
    before: Ids = np.cumsum(flags) - flags
    row_begins = np.searchsorted(owners, owners)
    return before - before[row_begins]


def share(counts: Ids, ratio: float, keys: Keys, config: DenoisingConfig) -> Ids:
    """Round `ratio` times each count to an integer: at random so that the expectation is exact, or
    up as in fairseq.
    """
    if config.sampling == "fairseq":
        return np.ceil(counts.astype(np.float32) * np.float32(ratio)).astype(np.int64)
    return np.floor(counts * ratio + uniform(keys, ROUND)).astype(np.int64)


def permute(text: Text, keys: Keys, ratio: float) -> Text:
    """Shuffle `ratio` (rounded up) of each sample's sentences among their positions.

    Example: the sentences A B C D with ratio 0.5, whose random numbers sort as B < D < A < C.
    B and D are chosen, in this order, and take the second and the fourth position, so that nothing
    changes. Had D come before B, the result would be A D C B.
    """
    first = np.flatnonzero(text.sentence_begins())
    lengths = np.diff(np.append(first, len(text.ids)))
    owners = text.owners[first]
    number = text.sentences[first].astype(np.uint64)
    order = np.lexsort((derive(keys[owners], PERMUTE, number), owners))
    sentences = np.bincount(owners, minlength=len(keys))
    wanted = np.ceil(sentences * 2 * ratio / 2).astype(np.int64)
    rank = np.arange(len(first)) - (np.cumsum(sentences) - sentences)[owners]
    chosen = order[rank < wanted[owners]]
    arranged = np.arange(len(first))
    arranged[np.sort(chosen)] = chosen
    lengths = lengths[arranged]
    moved = np.cumsum(lengths) - lengths
    anchors = np.repeat(first[arranged] - moved, lengths) + np.arange(len(text.ids))
    return text.edit(anchors, np.full(len(anchors), COPY), text.lengths)


def rotate(text: Text, keys: Keys, config: DenoisingConfig) -> Text:
    """Rotate `rotate_ratio` of the samples to begin at a token drawn uniformly.

    With a cut before the third token, a b c d e becomes c d e a b. fairseq also draws the cut after
    the last token, which changes nothing.
    """
    cuts = text.lengths + (config.sampling == "fairseq")
    offset = (uniform(keys, CUT) * cuts).astype(np.int64)
    offset[uniform(keys, ROTATE) >= config.rotate_ratio] = 0
    starts, owners = np.cumsum(text.lengths) - text.lengths, text.owners
    place = np.arange(len(text.ids)) - starts[owners] + offset[owners]
    wrapped = place >= text.lengths[owners]
    anchors = starts[owners] + place - np.where(wrapped, text.lengths[owners], 0)
    turned = text.edit(anchors, np.full(len(anchors), COPY), text.lengths)
    # For subsequent schemes, a sentence that was cut counts as two.
    numbers = np.where(wrapped, ~turned.sentences, turned.sentences)
    return Text(turned.ids, turned.lengths, numbers, turned.origins)


def insert(
    text: Text, number: Ids, keys: Keys, config: DenoisingConfig, new: NewTokens, begins: Flags
) -> Text:
    """Insert new tokens at random word boundaries.

    Example: 2 insertions into the tokens a b c make 5 positions. Random numbers order the
    positions, say 3 0 4 1 2. The first two of this order become insertions: <mask> a b <mask> c.
    The first `random_ratio` of the insertions, in this order, are random tokens.

    Args:
        number: [B] tokens to insert into each sample.
        begins: [T] True at tokens before which one may be inserted; also allowed at the end.
    """
    first = np.flatnonzero(begins)
    owner_of_word = text.owners[first]
    words = np.bincount(owner_of_word, minlength=len(keys))
    number = np.where(words > 0, number, 0)
    total = words + number
    order = _random_ranks(keys, total)
    real = np.arange(order.shape[1])[None] < total[:, None]
    inserted = (order < number[:, None])[real]
    random = share(number, config.random_ratio, derive(keys, REPLACE), config)
    is_random = (order < random[:, None])[real][inserted]
    owners = np.repeat(np.arange(len(keys)), total)
    before = np.cumsum(words) - words
    word = before[owners] + np.minimum(rank_in_row(~inserted, owners), words[owners] - 1)
    copies = np.where(inserted, 1, np.diff(np.append(first, len(text.ids)))[word])
    starts = np.cumsum(copies) - copies
    anchors = np.repeat(first[word] - starts, copies) + np.arange(int(copies.sum()))
    written = np.full(len(anchors), COPY)
    written[starts[inserted]] = new.draw(owners[inserted], is_random, keys)
    return text.edit(anchors, written, _sums(owners, copies, len(keys)))


def fill(
    text: Text, begins: Flags, keys: Keys, config: DenoisingConfig, new: NewTokens,
    *, single: bool, replace: int,
) -> Text:  # fmt: skip
    """Replace spans that cover `mask_ratio` of the words by masks.

    Example: the words a b c d e, 2 of them to mask, and drawn span lengths 0 and 2. The items are
    these two spans and three kept words. Random numbers order them, say kept, span 2, kept, span 0,
    kept. Assigning the words to the items from left to right puts b c under the span of length 2:
    a <mask> d <mask> e.

    Args:
        begins: [T] True at the first token of each word; at all tokens if tokens are the unit.
        single: mask single words; else draw span lengths from a Poisson distribution.
        replace: delete a span (0), replace it by one mask (1), or by a mask per token (-1). A span
            of length 0 always inserts a mask.
    """
    first = np.flatnonzero(begins)
    word_lengths = np.diff(np.append(first, len(text.ids)))
    words = np.bincount(text.owners[first], minlength=len(keys))
    wanted = share(words, config.mask_ratio, keys, config)
    if replace == 0:
        wanted = np.minimum(wanted, np.maximum(words - 1, 0))  # the source must not become empty
    lengths, counts = _single(wanted) if single else _poisson(wanted, keys, config.poisson_lambda)
    overlapping = config.sampling == "fairseq" and not single
    if overlapping:
        word, width, span, owners = _overlapping(words, lengths, keys, keep_each=replace == -1)
    else:
        word, width, span, owners = _disjoint(words, lengths, counts, keys)
    is_span = span >= 0
    bounds = np.append(first, len(text.ids))
    tokens = bounds[word + width] - bounds[word]
    word = np.minimum(word, (np.cumsum(words) - 1)[owners])  # an insertion at the very end
    under = {0: np.zeros_like(width), 1: np.ones_like(width), -1: tokens}[replace]
    copies = np.where(is_span, np.where(width == 0, 1, under), word_lengths[word])
    starts = np.cumsum(copies) - copies
    anchors = np.repeat(first[word] - starts, copies) + np.arange(int(copies.sum()))
    is_random = is_span.copy()
    numbers = uniform(keys[owners[is_span]], REPLACE, span[is_span].astype(np.uint64))
    is_random[is_span] = numbers < config.random_ratio
    places = np.repeat(is_span, copies)
    written = np.full(len(anchors), COPY)
    written[places] = new.draw(
        np.repeat(owners, copies)[places], np.repeat(is_random, copies)[places], keys
    )
    filled = text.edit(anchors, written, _sums(owners, copies, len(keys)))
    if not overlapping:
        return filled
    insertions = counts - (lengths > 0).sum(1)
    everywhere = np.ones(len(filled.ids), dtype=bool)
    return insert(filled, insertions, derive(keys, SPAN), config, new, everywhere)


def _single(wanted: Ids) -> tuple[Ids, Ids]:
    """Lengths [B, I] of single-word spans, padded with zeros, and their number [B]."""
    return (np.arange(wanted.max(initial=0))[None] < wanted[:, None]).astype(np.int64), wanted


def _poisson(wanted: Ids, keys: Keys, rate: float) -> tuple[Ids, Ids]:
    """Draw spans until they cover the wanted words; truncate the last one. Returns as `_single`.

    For 5 words and draws of 2, 0, 4, …, the span lengths are 2, 0, 3.
    """
    draws = int(wanted.max(initial=0) / rate * 1.5) + 12
    table = poisson_table(rate)
    while True:
        index = np.arange(draws, dtype=np.uint64)
        numbers = uniform(keys[:, None], SPAN, index[None, :])
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
    """P(length <= k) for k = 0, 1, …: the index of the first entry above u is a Poisson sample."""
    probability, cumulative, table = exp(-rate), 0.0, []
    for k in range(1, int(rate * 4) + 40):
        cumulative += probability
        table.append(cumulative)
        probability *= rate / k
    return np.array(table)


Items = tuple[Ids, Ids, Ids, Ids]
"""For each item, in order: its first word, its number of words, its rank among the spans of the
sample (-1 for a kept word), and its sample."""


def _disjoint(words: Ids, lengths: Ids, counts: Ids, keys: Keys) -> Items:
    """Order spans and kept words at random and assign the words to them from left to right."""
    items = counts + words - lengths.sum(1)
    most = int(items.max(initial=0))
    column = np.arange(most)[None]
    order = np.argsort(_random_places(keys, items, most), axis=1)
    widths = np.zeros((len(keys), most), dtype=np.int64)
    drawn = min(lengths.shape[1], most)
    widths[:, :drawn] = lengths[:, :drawn]
    is_span = column < counts[:, None]
    widths[~is_span] = 1
    widths = np.take_along_axis(widths, order, 1)
    is_span = np.take_along_axis(is_span, order, 1)
    word = np.cumsum(widths, axis=1) - widths + (np.cumsum(words) - words)[:, None]
    span = np.where(is_span, np.cumsum(is_span, axis=1) - 1, -1)
    real = column < items[:, None]
    return word[real], widths[real], span[real], np.repeat(np.arange(len(keys)), items)


def _overlapping(words: Ids, lengths: Ids, keys: Keys, *, keep_each: bool) -> Items:
    """Start spans at distinct random words; a span may overlap the next one, as in fairseq.

    Example: the words a b c d e f and spans of lengths 3 and 2. Random numbers order the words, say
    b c …. The first span starts at b and covers b c d, the second starts at c and covers c d. The
    result is one span at b and the kept words a e f: the second span is swallowed.

    Args:
        lengths: [B, I] span lengths; spans of length 0 are skipped.
        keep_each: return an item for each word of a span instead of one for the whole span.
    """
    width = int(words.max(initial=0))
    column = np.arange(width)[None]
    rank = _random_ranks(keys, words)
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
    word = column + (np.cumsum(words) - words)[:, None]
    owners = np.broadcast_to(np.arange(len(keys))[:, None], real.shape)
    ones = np.ones(int(real.sum()), dtype=np.int64)
    return word[real], ones, number[real], owners[real]


def _random_places(keys: Keys, counts: Ids, most: int) -> Keys:
    """[B, most] random number for each item; the largest integer beyond a row's count."""
    column = np.arange(most)[None]
    place = derive(keys[:, None], PLACE, column.astype(np.uint64)) >> np.uint64(1)
    place[column >= counts[:, None]] = LAST
    return place


def _random_ranks(keys: Keys, counts: Ids) -> Ids:
    """[B, I] rank of each item in a random order of its row."""
    order = np.argsort(_random_places(keys, counts, int(counts.max(initial=0))), axis=1)
    return np.argsort(order, axis=1)


def _sums(owners: Ids, copies: Ids, rows: int) -> Ids:
    return np.bincount(owners, weights=copies, minlength=rows).astype(np.int64)
