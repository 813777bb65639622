"""Corrupt a batch with BART's noising schemes, in the configured order.

In: samples as flat token ids with the lengths of their sentences. Out: the noised ids. NumPy noises
a whole batch in one pass; the noise of each sample is a pure function of its random key.

A word is a token that starts one (see `words.py`) and the tokens up to the next word start.
`noise_schemes.py` implements the schemes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bart_cli.config.data import DenoisingConfig
from bart_cli.data.noise_schemes import (
    Flags,
    NewTokens,
    Sentences,
    Text,
    fill,
    insert,
    permute,
    rotate,
    share,
)
from bart_cli.data.noise_spans import Ids as Ids
from bart_cli.data.noise_spans import starts_of
from bart_cli.data.random_keys import Keys, Purpose, derive
from bart_cli.data.words import word_starts
from bart_cli.errors import UsageError
from bart_cli.tokenizer import Tokenizer


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths, concatenated in `values`; `lengths` has one entry per row."""

    values: Ids
    lengths: Ids

    @classmethod
    def of(cls, rows: Sequence[Ids]) -> Ragged:
        """Concatenate rows."""
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        return cls(np.concatenate([np.zeros(0, dtype=np.int64), *rows]), lengths)

    @cached_property
    def starts(self) -> Ids:
        """Index in `values` at which each row begins."""
        return starts_of(self.lengths)

    def row(self, index: int) -> Ids:
        """Return one row, as a view of `values`."""
        start = int(self.starts[index])
        return self.values[start : start + int(self.lengths[index])]


class Denoiser:
    """A function that noises batches; its lookup tables are built once, in the constructor.

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
        self._word_starts = word_starts(tokenizer)
        ordinary = np.ones(tokenizer.vocab_size, dtype=bool)
        ordinary[list(tokenizer.special.values())] = False
        self._new = NewTokens(tokenizer.mask_id, np.flatnonzero(ordinary))

    def __call__(self, tokens: Ragged, sentences: Ragged, keys: Keys) -> Ragged:
        """Return the noised tokens of each sample.

        Args:
            tokens: [B] rows of ids, without <s> and </s>.
            sentences: [B] rows of sentence lengths in tokens; each row sums to the length of its
                sample.
            keys: [B] random keys, one per sample.
        """
        text = self._noise(tokens, sentences, keys, self._word_starts)
        return Ragged(text.ids, text.lengths)

    def origins(self, tokens: Ragged, sentences: Ragged, keys: Keys) -> Ragged:
        """Return the index in `tokens.values` that each token of the noised samples comes from.

        The index of a new token (<mask> or a random token) is -1. Arguments as in `__call__`.
        """
        # Encode positions as ids above the vocabulary, so that every scheme moves them like tokens.
        vocabulary, starts = len(self._word_starts), self._word_starts
        places = Ragged(np.arange(len(tokens.values)) + vocabulary, tokens.lengths)
        text = self._noise(places, sentences, keys, np.append(starts, starts[tokens.values]))
        return Ragged(np.maximum(text.ids - vocabulary, -1), text.lengths)

    def _noise(self, tokens: Ragged, sentences: Ragged, keys: Keys, word_starts: Flags) -> Text:
        def find_sentences() -> Sentences:
            owners = np.repeat(np.arange(len(keys)), sentences.lengths)
            numbers = np.arange(len(owners)) - sentences.starts[owners]
            used = sentences.values > 0
            return Sentences(starts_of(sentences.values)[used], owners[used], numbers[used])

        text = Text(tokens.values, tokens.lengths, find_sentences)
        for scheme in self._config.schemes:
            part = Purpose.__members__.get(f"{scheme.upper()}_SCHEME")
            own_keys = keys if part is None else derive(keys, part)
            text = self._apply(scheme, text, own_keys, word_starts)
        return text

    def _apply(self, scheme: str, text: Text, keys: Keys, word_starts: Flags) -> Text:
        config = self._config
        if not len(text.ids):
            return text
        if scheme == "permute":
            return permute(text, keys, config.permute_ratio)
        if scheme == "rotate":
            return rotate(text, keys, config)
        if scheme == "insert":
            fairseq = config.sampling == "fairseq"  # counts <s> and </s>; may split words
            number = share(text.lengths + 2 * fairseq, config.insert_ratio, keys, config)
            begins = _token_begins(text) if fairseq else _word_begins(text, word_starts)
            return insert(text, number, keys, config, self._new, begins)
        if config.mask_ratio == 0:
            return text
        tokens = config.mask_length == "subword" or not config.whole_words
        if scheme == "infill" and not tokens:
            begins = _word_begins(text, word_starts)
        else:
            begins = _token_begins(text)
        single = scheme != "infill" or config.mask_length != "span-poisson"
        replace = {"mask": 1, "delete": 0, "infill": config.replace_length}[scheme]
        return fill(text, begins, keys, config, self._new, single=single, replace=replace)


def _word_begins(text: Text, word_starts: Flags) -> Flags:
    """[T] True at the first token of each word; a sentence begins with a word."""
    begins = word_starts[text.ids]
    begins[text.sentences.first] = True
    return begins


def _token_begins(text: Text) -> Flags:
    return np.ones(len(text.ids), dtype=bool)
