"""The noising schemes of BART (Lewis et al. 2020, section 2.2), each for a whole batch at once.

In: a `Text`, the random keys of its samples, and settings. Out: a new `Text`. A scheme answers, for
each token that it puts out, which token of its input stands there (`anchors`) and whether another
one is written in its place (`written`, COPY if none). From this `edit` also carries over which
sentence a token belongs to and where it came from, so that schemes compose in any order.

`sampling=exact` is ours: the expected share is exactly the configured one, spans never overlap, a
word is never torn. `sampling=fairseq` draws as fairseq's DenoisingDataset does: counts are rounded
up, spans may run into each other (so fewer words are masked than `mask_ratio` says), insertions may
fall inside a word.
"""

# Legend: B samples, T tokens of the batch, W words of the longest sample, I items of it (words
# kept, spans, insertions).

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

# One independent stream of random numbers for each purpose.
PERMUTE, ROUND, SPAN, PLACE, REPLACE, TOKEN, ROTATE, CUT = range(8)
COPY = -1
LAST = np.uint64(2**64 - 1)


@dataclass(frozen=True)
class Text:
    """Samples between two schemes.

    ids: [T] tokens, sample after sample. lengths: [B]. sentences: [T] number of each token's
    sentence in its sample. origins: [T] index of each token in the first text, -1 if it is new.
    """

    ids: Ids
    lengths: Ids
    sentences: Ids
    origins: Ids

    @cached_property
    def owners(self) -> Ids:
        """[T] the sample of each token."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    def sentence_begins(self) -> Flags:
        """[T] the first token of each run of one sentence."""
        owners = self.owners
        begins = np.ones(len(self.ids), dtype=bool)
        begins[1:] = (self.sentences[1:] != self.sentences[:-1]) | (owners[1:] != owners[:-1])
        return begins

    def edit(self, anchors: Ids, written: Ids, lengths: Ids) -> Text:
        """The text with token `written`, or else the one at `anchors`, at each place."""
        copied = written == COPY
        return Text(
            np.where(copied, self.ids[anchors], written),
            lengths,
            self.sentences[anchors],
            np.where(copied, self.origins[anchors], -1),
        )


@dataclass(frozen=True)
class NewTokens:
    """Tokens that noise writes: <mask>, or one of the ordinary ones at random."""

    mask_id: int
    ordinary: Ids

    def draw(self, owners: Ids, is_random: Flags, keys: Keys) -> Ids:
        """A token for each place; `owners` (ascending) has its sample."""
        drawn = np.full(len(owners), self.mask_id, dtype=np.int64)
        rank = rank_in_row(np.ones(len(owners), dtype=bool), owners)[is_random]
        number = uniform(keys[owners[is_random]], TOKEN, rank.astype(np.uint64))
        drawn[is_random] = self.ordinary[(number * len(self.ordinary)).astype(np.int64)]
        return drawn


def rank_in_row(flags: Flags, owners: Ids) -> Ids:
    """How many flags are set in the same row before each place.

    >>> rank_in_row(np.array([1, 0, 1, 1, 1], dtype=bool), np.array([0, 0, 0, 1, 1])).tolist()
    [0, 1, 1, 0, 1]
    """
    before: Ids = np.cumsum(flags) - flags
    row_begins = np.searchsorted(owners, owners)
    return before - before[row_begins]


def share(of: Ids, ratio: float, keys: Keys, config: DenoisingConfig) -> Ids:
    """`ratio` of each count as a whole number: exact on average, or rounded up as in fairseq."""
    if config.sampling == "fairseq":
        return np.ceil(of.astype(np.float32) * np.float32(ratio)).astype(np.int64)
    return np.floor(of * ratio + uniform(keys, ROUND)).astype(np.int64)


def permute(text: Text, keys: Keys, ratio: float) -> Text:
    """Shuffle `ratio` (rounded up) of each sample's sentences among their own places.

    With the sentences A B C D of one sample, ratio 0.5, and B < D < A < C in the order of their
    random numbers: B and D are chosen, in this order. Their places are, in order, the second and
    the fourth: B goes to the second, D to the fourth. Had D been drawn before B, the result would
    be A D C B.
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
    """Let `rotate_ratio` of the samples begin at a token drawn uniformly.

    With a cut before the third token, a b c d e becomes c d e a b. In fairseq, the cut behind the
    last token counts as well, and changes nothing.
    """
    cuts = text.lengths + (config.sampling == "fairseq")
    offset = (uniform(keys, CUT) * cuts).astype(np.int64)
    offset[uniform(keys, ROTATE) >= config.rotate_ratio] = 0
    starts, owners = np.cumsum(text.lengths) - text.lengths, text.owners
    place = np.arange(len(text.ids)) - starts[owners] + offset[owners]
    wrapped = place >= text.lengths[owners]
    anchors = starts[owners] + place - np.where(wrapped, text.lengths[owners], 0)
    turned = text.edit(anchors, np.full(len(anchors), COPY), text.lengths)
    # A sentence that is cut becomes two, for schemes that follow.
    numbers = np.where(wrapped, ~turned.sentences, turned.sentences)
    return Text(turned.ids, turned.lengths, numbers, turned.origins)


def insert(
    text: Text, number: Ids, keys: Keys, config: DenoisingConfig, new: NewTokens, begins: Flags
) -> Text:
    """Insert new tokens at random places: `number` [B] in each sample, in front of `begins` or at
    the end.

    With the tokens a b c and 2 insertions there are 5 places. Random numbers order them, say
    3 0 4 1 2: the first two of this order become insertions, so the result is <mask> a b <mask> c.
    The first `random_ratio` of the insertions in this order are random tokens.
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
    """Take `mask_ratio` of the words away in spans; put masks in their place.

    Take the words a b c d e of one sample, of which 2 are wanted, and the drawn spans 0 and 2. The
    items are the spans 0 and 2 and three kept words. Random numbers put them into an order, say
    kept, span 2, kept, span 0, kept: words are dealt out from left to right, so `b c` is under the
    span of two, and the result is a <mask> d <mask> e.

    Args:
        begins: [T] the first token of each word; all tokens, where tokens are the unit.
        single: spans of one word each, else Poisson lengths.
        replace: a span becomes nothing (0), one mask (1), or a mask for each of its tokens (-1). A
            span of no words always inserts a mask.
    """
    first = np.flatnonzero(begins)
    word_lengths = np.diff(np.append(first, len(text.ids)))
    words = np.bincount(text.owners[first], minlength=len(keys))
    wanted = share(words, config.mask_ratio, keys, config)
    if replace == 0:
        wanted = np.minimum(wanted, np.maximum(words - 1, 0))  # never an empty source
    lengths, counts = _single(wanted) if single else _poisson(wanted, keys, config.poisson_lambda)
    overlapping = config.sampling == "fairseq" and not single
    if overlapping:
        word, width, span, owners = _overlapping(words, lengths, keys, keep_each=replace == -1)
    else:
        word, width, span, owners = _disjoint(words, lengths, counts, keys)
    is_span = span >= 0
    behind = np.append(first, len(text.ids))
    tokens = behind[word + width] - behind[word]
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
    """Spans of one word: their lengths [B, I], zero behind a row's last, and their number [B]."""
    return (np.arange(wanted.max(initial=0))[None] < wanted[:, None]).astype(np.int64), wanted


def _poisson(wanted: Ids, keys: Keys, rate: float) -> tuple[Ids, Ids]:
    """Spans drawn until they cover the wanted words, the last one cut to fit; as in `_single`.

    For 5 words and draws of 2, 0, 4, 3 … the spans are 2, 0, 3.
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
    """P(length <= k) for k = 0, 1, …; the index of the first entry above u is a Poisson draw."""
    probability, cumulative, table = exp(-rate), 0.0, []
    for k in range(1, int(rate * 4) + 40):
        cumulative += probability
        table.append(cumulative)
        probability *= rate / k
    return np.array(table)


Items = tuple[Ids, Ids, Ids, Ids]
"""Of each item, in order: its first word, its words, its rank among the spans of the sample (-1: a
kept word), its sample."""


def _disjoint(words: Ids, lengths: Ids, counts: Ids, keys: Keys) -> Items:
    """Spans and kept words in a random order, to which the words are dealt out."""
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
    """Spans that begin at different words and may run into the next span, as in fairseq.

    Take the words a b c d e f and spans of 3 and 2. Random numbers put the words into an order, say
    b c …: the first span begins at b and covers b c d, the second at c and covers c d. What is left
    is one span at b, and the kept words a e f: c was swallowed.

    Args:
        lengths: [B, I] of the spans; those of no words are left out.
        keep_each: an item for each word of a span, not one for the whole span.
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
    """[B, most] a random number for each item; beyond a row's count the highest one."""
    column = np.arange(most)[None]
    place = derive(keys[:, None], PLACE, column.astype(np.uint64)) >> np.uint64(1)
    place[column >= counts[:, None]] = LAST
    return place


def _random_ranks(keys: Keys, counts: Ids) -> Ids:
    """[B, items] the place of each item in a random order of its row."""
    order = np.argsort(_random_places(keys, counts, int(counts.max(initial=0))), axis=1)
    return np.argsort(order, axis=1)


def _sums(owners: Ids, copies: Ids, rows: int) -> Ids:
    return np.bincount(owners, weights=copies, minlength=rows).astype(np.int64)
