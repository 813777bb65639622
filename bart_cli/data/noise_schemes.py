"""The noising schemes of BART (Lewis et al. 2020, section 2.2), vectorized over a batch.

In: a `Text`, the random keys of its samples, and settings. Out: a new `Text`. For each output
token, a scheme computes the input token at that position (`anchors`): the token that is copied, or
one in the sentence of a new token. `Text.edit` tracks the sentences, so that schemes compose in any
order.

`sampling=exact` is our own: the expected share equals the configured ratio, spans never overlap,
and words are never split. `sampling=fairseq` draws as fairseq's DenoisingDataset does: counts are
rounded up, spans may overlap (which masks fewer words than `mask_ratio`), and tokens may be
inserted inside a word.
"""

# Legend: B samples, T tokens of the batch, S sentences, I items of the longest sample (kept words,
# spans, insertions), K spans or insertions of the batch.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bart_cli.config.data import DenoisingConfig
from bart_cli.data.noise_spans import (
    Ids,
    assign_words,
    disjoint_spans,
    overlapping_spans,
    poisson_spans,
    random_ranks,
    single_spans,
    starts_of,
)
from bart_cli.data.random_keys import Keys, Purpose, derive, uniform

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Sentences:
    """The sentences of a `Text`, in order; a sentence split by a rotation counts as two."""

    first: Ids  # [S] index of the first token
    owners: Ids  # [S] index of the sample
    numbers: Ids  # [S] index of the sentence in the original sample


@dataclass(frozen=True)
class Text:
    """The samples of a batch: input and output of a scheme."""

    ids: Ids  # [T] tokens, concatenated
    lengths: Ids  # [B] number of tokens of each sample
    find_sentences: Callable[[], Sentences]  # computes `sentences` lazily; few schemes need them

    @cached_property
    def sentences(self) -> Sentences:
        return self.find_sentences()

    @cached_property
    def bounds(self) -> Ids:
        """[B + 1] index of the first token of each sample, and T."""
        return np.append(starts_of(self.lengths), len(self.ids))

    def owners(self) -> Ids:
        """[T] index of each token's sample."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    def sentence_numbers(self) -> Ids:
        """[T] index of each token's sentence in the original sample."""
        return np.repeat(self.sentences.numbers, self.sentence_lengths())

    def sentence_lengths(self) -> Ids:
        """[S] number of tokens of each sentence."""
        return np.diff(np.append(self.sentences.first, len(self.ids)))

    def edit(self, anchors: Ids, lengths: Ids) -> Text:
        """Build a text from the tokens at `anchors`.

        Args:
            anchors: [T'] index in this text for each token of the new one.
            lengths: [B] tokens of each new sample.
        """

        def find() -> Sentences:
            owners = np.repeat(np.arange(len(lengths)), lengths)
            return find_sentences(self.sentence_numbers()[anchors], owners)

        return Text(self.ids[anchors], lengths, find)


def find_sentences(numbers: Ids, owners: Ids) -> Sentences:
    """Find the sentences, given the sentence [T] and the sample [T] of each token."""
    begins = np.ones(len(numbers), dtype=bool)
    begins[1:] = (numbers[1:] != numbers[:-1]) | (owners[1:] != owners[:-1])
    first = np.flatnonzero(begins)
    return Sentences(first, owners[first], numbers[first])


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
        places = np.flatnonzero(is_random)
        rank = places - np.searchsorted(owners, owners[places])
        number = uniform(keys[owners[places]], Purpose.TOKEN, rank.astype(np.uint64))
        drawn[places] = self.ordinary[(number * len(self.ordinary)).astype(np.int64)]
        return drawn


def ranges(firsts: Ids, lengths: Ids) -> Ids:
    """Concatenate the ranges of these lengths that start at `firsts`.

    >>> ranges(np.array([7, 3]), np.array([2, 3])).tolist()
    [7, 8, 3, 4, 5]
    """
    numbers: Ids = np.repeat(firsts - starts_of(lengths), lengths)
    numbers += np.arange(len(numbers))
    return numbers


def share(counts: Ids, ratio: float, keys: Keys, config: DenoisingConfig) -> Ids:
    """Round `ratio` times each count to an integer.

    Rounding is random, so that the expectation is exact, or up, as in fairseq.
    """
    if config.sampling == "fairseq":
        return np.ceil(counts.astype(np.float32) * np.float32(ratio)).astype(np.int64)
    return np.floor(counts * ratio + uniform(keys, Purpose.ROUND)).astype(np.int64)


def permute(text: Text, keys: Keys, ratio: float) -> Text:
    """Shuffle `ratio` (rounded up) of each sample's sentences among their positions.

    Example: the sentences A B C D with ratio 0.5, whose random numbers sort as B < D < A < C.
    B and D are chosen, in this order, and take the second and the fourth position, so that nothing
    changes. Had D come before B, the result would be A D C B.
    """
    found, lengths = text.sentences, text.sentence_lengths()
    owners = found.owners
    numbers = found.numbers.astype(np.uint64)
    arranged = np.lexsort((derive(keys[owners], Purpose.PERMUTE, numbers), owners))
    if ratio < 1:
        sentences = np.bincount(owners, minlength=len(keys))
        wanted = np.ceil(sentences * 2 * ratio / 2).astype(np.int64)
        rank = np.arange(len(owners)) - starts_of(sentences)[owners]
        chosen = arranged[rank < wanted[owners]]
        arranged = np.arange(len(owners))
        arranged[np.sort(chosen)] = chosen
    lengths = lengths[arranged]
    moved = Sentences(starts_of(lengths), owners, found.numbers[arranged])
    anchors = ranges(found.first[arranged], lengths)
    return Text(text.ids[anchors], text.lengths, lambda: moved)


def rotate(text: Text, keys: Keys, config: DenoisingConfig) -> Text:
    """Rotate `rotate_ratio` of the samples to begin at a token drawn uniformly.

    With a cut before the third token, a b c d e becomes c d e a b. fairseq also draws the cut after
    the last token, which changes nothing.
    """
    cuts = text.lengths + (config.sampling == "fairseq")
    offset = (uniform(keys, Purpose.CUT) * cuts).astype(np.int64)
    offset[uniform(keys, Purpose.ROTATE) >= config.rotate_ratio] = 0
    starts, owners = text.bounds[:-1], text.owners()
    place = np.arange(len(text.ids)) - starts[owners] + offset[owners]
    wrapped = place >= text.lengths[owners]
    anchors = starts[owners] + place - np.where(wrapped, text.lengths[owners], 0)

    def find() -> Sentences:  # for subsequent schemes, a sentence that was split counts as two
        numbers = text.sentence_numbers()[anchors]
        return find_sentences(np.where(wrapped, ~numbers, numbers), owners)

    return Text(text.ids[anchors], text.lengths, find)


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
    starts, rows = _words(text, begins)
    words = np.diff(rows)
    number = np.where(words > 0, number, 0)
    ranks = random_ranks(keys, words + number)
    places = np.flatnonzero(ranks < number[:, None])
    owners = np.repeat(np.arange(len(keys)), number)
    random = share(number, config.random_ratio, derive(keys, Purpose.REPLACE), config)
    written = new.draw(owners, ranks.ravel()[places] < random[owners], keys)
    nothing = np.zeros_like(places)
    spans = assign_words(places, ranks.shape[1], owners, number, nothing, rows)
    return _rewrite(text, starts[spans.words], nothing, nothing + 1, owners, written)


def fill(
    text: Text, begins: Flags, keys: Keys, config: DenoisingConfig, new: NewTokens,
    *, single: bool, replace: int,
) -> Text:  # fmt: skip
    """Replace spans that cover `mask_ratio` of the words with masks.

    Example: the words a b c d e, 2 of them to mask, and drawn span lengths 0 and 2. The items are
    these two spans and three kept words. Random numbers order them, say kept, span 2, kept, span 0,
    kept. Assigning the words to the items from left to right puts b c under the span of length 2:
    a <mask> d <mask> e.

    Args:
        begins: [T] True at the first token of each word; at all tokens if tokens are the unit.
        single: mask single words; else draw span lengths from a Poisson distribution.
        replace: delete a span (0), replace it with one mask (1), or with a mask per token (-1). A
            span of length 0 always inserts a mask.
    """
    starts, rows = _words(text, begins)
    words = np.diff(rows)
    wanted = share(words, config.mask_ratio, keys, config)
    if replace == 0:
        wanted = np.minimum(wanted, np.maximum(words - 1, 0))  # the source must not become empty
    lengths, counts = (
        single_spans(wanted) if single else poisson_spans(wanted, keys, config.poisson_lambda)
    )
    overlapping = config.sampling == "fairseq" and not single
    if overlapping:
        spans = overlapping_spans(rows, lengths, keys, keep_each=replace == -1)
    else:
        spans = disjoint_spans(rows, lengths, counts, keys)
    first = starts[spans.words]
    taken = starts[spans.words + spans.widths] - first
    put = {0: np.zeros_like(taken), 1: np.ones_like(taken), -1: taken.copy()}[replace]
    put[spans.widths == 0] = 1
    if config.random_ratio:
        numbers = uniform(keys[spans.owners], Purpose.REPLACE, spans.ranks.astype(np.uint64))
        is_random = np.repeat(numbers < config.random_ratio, put)
        written: Ids | int = new.draw(np.repeat(spans.owners, put), is_random, keys)
    else:
        written = new.mask_id
    filled = _rewrite(text, first, taken, put, spans.owners, written)
    if not overlapping:
        return filled
    insertions = counts - (lengths > 0).sum(1)
    everywhere = np.ones(len(filled.ids), dtype=bool)
    return insert(filled, insertions, derive(keys, Purpose.SPAN), config, new, everywhere)


def _words(text: Text, begins: Flags) -> tuple[Ids, Ids]:
    """Find the words.

    Returns:
        the index of the first token of each word, followed by T; and [B + 1] the index of the
        first word of each sample, followed by the number of words.
    """
    first = np.flatnonzero(begins)
    return np.append(first, len(text.ids)), np.searchsorted(first, text.bounds)


def _rewrite(
    text: Text, first: Ids, taken: Ids, put: Ids, owners: Ids, written: Ids | int
) -> Text:  # fmt: skip
    """Replace `taken` [K] tokens, starting at `first` [K], with `put` [K] new ones.

    Example: in a b c d e, replace 2 tokens at 1 and 0 tokens at 4 with one mask each. The `shifts`
    between new and old positions are 0 before the first mask, 1 up to the second one, then 0. New
    tokens are at 1 and 3, and the anchors of the others are 0, 3, 4: a <mask> d <mask> e.

    Args:
        owners: [K] index of the sample.
        written: the new tokens, concatenated; or one id for all of them.
    """
    shifts = np.zeros(len(first) + 1, dtype=np.int64)  # before each replacement, and after all
    np.cumsum(taken - put, out=shifts[1:])
    places = first - shifts[:-1]
    size = len(text.ids) - int(shifts[-1])
    runs = np.append(places + put, size)
    runs[1:] -= runs[:-1].copy()
    anchors = np.repeat(shifts, runs)
    anchors += np.arange(size)
    news = ranges(places, put)
    # A new token after the last one of a sample does not belong to a sentence of the next sample.
    anchors[news] = np.minimum(anchors[news], np.repeat(text.bounds[1:][owners] - 1, put))
    change = np.bincount(owners, weights=put - taken, minlength=len(text.lengths))
    edited = text.edit(anchors, text.lengths + change.astype(np.int64))
    edited.ids[news] = written
    return edited
