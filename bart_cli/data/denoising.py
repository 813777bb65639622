"""BART's noise: sentence permutation, then Poisson text in-filling (Lewis et al. 2020, 2.1).

In: samples as flat token ids with the lengths of their sentences. Out: the noised ids. A batch
is noised at once in numpy; each sample's noise is a pure function of its own key.

In-filling masks `mask_ratio` of the words, in spans of Poisson(`poisson_lambda`) words; each span
becomes one <mask>. A span of length zero inserts a <mask> between words. The spans of a sample are
drawn until they cover the wanted number of words, the last one is cut to fit, and then spans and
remaining words are put in a random order, so that spans never overlap and the ratio is exact (to a
word, rounded at random). Units are words (a token that begins one, see `words.py`, and those
that follow it), or tokens when `whole_words` is off. Of all masks `random_ratio` become a random
token instead, as in fairseq's recipe for the released models.
"""

# Legend: B samples, W words of the longest sample, I items (words kept, spans, insertions) of it.

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import exp

import numpy as np
from numpy.typing import NDArray

from bart_cli.config.data import DenoisingConfig
from bart_cli.data.random_keys import Keys, derive, uniform
from bart_cli.data.words import word_starts
from bart_cli.errors import UsageError
from bart_cli.tokenizer import Tokenizer

Ids = NDArray[np.int64]

# One independent stream of random numbers for each purpose.
PERMUTE, ROUND, SPAN, PLACE, REPLACE, TOKEN = range(6)


@dataclass(frozen=True)
class Ragged:
    """Rows of different length: `values` one after the other, `lengths` of each."""

    values: Ids
    lengths: Ids

    @cached_property
    def starts(self) -> Ids:
        """Where each row begins in `values`."""
        return np.cumsum(self.lengths) - self.lengths

    def row(self, index: int) -> Ids:
        """One row."""
        start = int(self.starts[index])
        return self.values[start : start + int(self.lengths[index])]


class Denoiser:
    """Noise for batches, with the tables that it needs made once.

    Args:
        config: the recipe.
        tokenizer: for the <mask> id and for which tokens begin a word.

    Raises:
        UsageError: the tokenizer has no mask token.
    """

    def __init__(self, config: DenoisingConfig, tokenizer: Tokenizer) -> None:
        self._config = config
        if tokenizer.mask_id is None:
            raise UsageError(
                "the tokenizer has no mask token, which denoising needs",
                hint='Name one of its tokens in tokenizer_config.json: "mask_token": "…".',
            )
        self._mask_id = tokenizer.mask_id
        self._word_starts = word_starts(tokenizer)
        ordinary = np.ones(tokenizer.vocab_size, dtype=bool)
        ordinary[list(tokenizer.special.values())] = False
        self._ordinary = np.flatnonzero(ordinary)
        self._poisson = _poisson_table(config.poisson_lambda)

    def __call__(self, tokens: Ragged, sentences: Ragged, keys: Keys) -> Ragged:
        """Noised tokens of each sample.

        Args:
            tokens: [B] rows of ids, without <s> and </s>.
            sentences: [B] rows of sentence lengths; they add up to the sample's tokens.
            keys: [B], one per sample.
        """
        ids, begins = _permute(tokens, sentences, keys, self._config.permute_sentences)
        return self._infill(ids, tokens, self._word_begins(ids, begins), keys)

    def origins(self, tokens: Ragged, sentences: Ragged, keys: Keys) -> Ragged:
        """Where each token of the noised samples comes from: its index in `tokens.values`.

        -1 stands for a mask, or the random token in its place.
        """
        shuffle = self._config.permute_sentences
        ids, begins = _permute(tokens, sentences, keys, shuffle)
        beyond = len(self._word_starts)  # so that no place looks like a token
        places = Ragged(np.arange(len(ids)) + beyond, tokens.lengths)
        permuted, _ = _permute(places, sentences, keys, shuffle)
        traced = self._infill(permuted, tokens, self._word_begins(ids, begins), keys)
        return Ragged(np.maximum(traced.values - beyond, -1), traced.lengths)

    def _word_begins(self, ids: Ids, sentence_begins: NDArray[np.bool_]) -> NDArray[np.bool_]:
        if not self._config.whole_words:
            return np.ones_like(sentence_begins)
        return sentence_begins | self._word_starts[ids]

    def _infill(self, ids: Ids, tokens: Ragged, begins: NDArray[np.bool_], keys: Keys) -> Ragged:
        """Mask spans of the permuted `ids`; `begins` marks the first token of each word."""
        if self._config.mask_ratio == 0 or not len(ids):
            return Ragged(ids, tokens.lengths)
        first_tokens = np.flatnonzero(begins)
        word_lengths = np.diff(np.append(first_tokens, len(ids)))
        owners = np.repeat(np.arange(len(keys)), tokens.lengths)[first_tokens]
        words = np.bincount(owners, minlength=len(keys))  # [B]
        lengths, counts = self._spans(words, keys)  # [B, I]: words under each item that is a mask
        # Items in order: draws 0 … counts - 1 are masks, then one item for each word kept.
        kept = words - lengths.sum(1)
        items = counts + kept
        most = int(items.max())
        column = np.arange(most)[None]
        place = derive(keys[:, None], PLACE, column.astype(np.uint64)) >> np.uint64(1)
        place[column >= items[:, None]] = np.uint64(2**64 - 1)  # beyond the row: to the end
        order = np.argsort(place, axis=1)  # a random order of the items
        widths = np.zeros((len(keys), most), dtype=np.int64)
        drawn = min(lengths.shape[1], most)
        widths[:, :drawn] = lengths[:, :drawn]
        is_mask = column < counts[:, None]
        widths[~is_mask] = 1
        widths = np.take_along_axis(widths, order, 1)
        is_mask = np.take_along_axis(is_mask, order, 1)
        real = column < items[:, None]
        word = np.cumsum(widths, axis=1) - widths + (np.cumsum(words) - words)[:, None]
        word, is_mask = word[real], is_mask[real]  # flat from here on: items of all samples
        word[is_mask] = 0  # an insertion at the very end points behind the last word
        copies = np.where(is_mask, 1, word_lengths[word])
        starts = np.cumsum(copies) - copies
        source = np.repeat(first_tokens[word] - starts, copies) + np.arange(int(copies.sum()))
        noised = ids[source]
        masks = starts[is_mask]
        noised[masks] = self._mask_id
        item_owner = np.repeat(np.arange(len(keys)), items)
        self._replace(noised, masks, item_owner[is_mask], keys, counts)
        return Ragged(
            noised, np.bincount(item_owner, weights=copies, minlength=len(keys)).astype(int)
        )

    def _spans(self, words: Ids, keys: Keys) -> tuple[Ids, Ids]:
        """Span lengths [B, draws] in words, zero behind a row's last, and their number [B]."""
        wanted = np.floor(words * self._config.mask_ratio + uniform(keys, ROUND)).astype(np.int64)
        draws = int(wanted.max() / self._config.poisson_lambda * 1.5) + 12
        while True:
            index = np.arange(draws, dtype=np.uint64)
            numbers = uniform(keys[:, None], SPAN, index[None, :])
            lengths = np.searchsorted(self._poisson, numbers, side="right")
            covered = np.cumsum(lengths, axis=1)
            if (covered[:, -1] >= wanted).all():
                break
            draws *= 2  # rare: many short spans
        before = covered - lengths
        used = before < wanted[:, None]
        lengths = np.where(used, np.minimum(lengths, wanted[:, None] - before), 0)
        return lengths, used.sum(1)

    def _replace(self, noised: Ids, masks: Ids, owners: Ids, keys: Keys, counts: Ids) -> None:
        """Turn `random_ratio` of the masks (positions in `noised`) into random tokens, in place."""
        if not self._config.random_ratio or not len(masks):
            return
        rank = np.arange(len(masks)) - np.repeat(np.cumsum(counts) - counts, counts)
        owner_keys, rank_keys = keys[owners], rank.astype(np.uint64)
        chosen = uniform(owner_keys, REPLACE, rank_keys) < self._config.random_ratio
        number = uniform(owner_keys[chosen], TOKEN, rank_keys[chosen])
        noised[masks[chosen]] = self._ordinary[(number * len(self._ordinary)).astype(np.int64)]


def _permute(
    tokens: Ragged, sentences: Ragged, keys: Keys, shuffle: bool
) -> tuple[Ids, NDArray[np.bool_]]:
    """Tokens with each sample's sentences in a random order, and where sentences begin."""
    begins = np.zeros(len(tokens.values), dtype=bool)
    lengths = sentences.values
    starts = np.cumsum(lengths) - lengths
    ids = tokens.values
    if shuffle:
        owners = np.repeat(np.arange(len(keys)), sentences.lengths)
        rank = np.arange(len(owners)) - np.repeat(sentences.starts, sentences.lengths)
        order = np.lexsort((derive(keys[owners], PERMUTE, rank.astype(np.uint64)), owners))
        lengths = lengths[order]
        moved = np.cumsum(lengths) - lengths
        ids = ids[np.repeat(starts[order] - moved, lengths) + np.arange(len(ids))]
        starts = moved
    else:
        ids = ids.copy()
    begins[starts[lengths > 0]] = True
    return ids, begins


def _poisson_table(rate: float) -> NDArray[np.float64]:
    """P(length <= k) for k = 0, 1, …; the index of the first entry above u is a Poisson draw."""
    probability, cumulative, table = exp(-rate), 0.0, []
    for k in range(1, int(rate * 4) + 40):
        cumulative += probability
        table.append(cumulative)
        probability *= rate / k
    return np.array(table)
