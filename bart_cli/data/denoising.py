"""Corrupt a batch with BART's noising schemes, in the configured order.

In: samples as flat token ids with the lengths of their sentences. Out: the noised ids. NumPy noises
a whole batch in one pass; the noise of each sample is a pure function of its random key.

A word is a token that starts one (see `words.py`) and the tokens up to the next word start.
`noise_schemes.py` implements the schemes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bart_cli.config.data import DenoisingConfig
from bart_cli.data.noise_schemes import (
    Flags,
    NewTokens,
    Text,
    fill,
    insert,
    permute,
    rotate,
    share,
)
from bart_cli.data.noise_schemes import Ids as Ids
from bart_cli.data.random_keys import Keys, derive
from bart_cli.data.words import word_starts
from bart_cli.errors import UsageError
from bart_cli.tokenizer import Tokenizer

# Mixed into a sample's key, so that each scheme draws independent random numbers; `permute` and
# `infill` use the key itself. Changing a number breaks bitwise resume.
SCHEME_KEYS = {"mask": 11, "delete": 12, "insert": 13, "rotate": 14}


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths, concatenated in `values`; `lengths` has one entry per row."""

    values: Ids
    lengths: Ids

    @cached_property
    def starts(self) -> Ids:
        """Index in `values` at which each row begins."""
        return np.cumsum(self.lengths) - self.lengths

    def row(self, index: int) -> Ids:
        """Return one row, as a view of `values`."""
        start = int(self.starts[index])
        return self.values[start : start + int(self.lengths[index])]


class Denoiser:
    """A function that noises batches; its lookup tables are built once, in the constructor.

    Args:
        config: the noising schemes and their settings.
        tokenizer: provides the <mask> id and the tokens that begin a word.

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
        text = self._noise(tokens, sentences, keys)
        return Ragged(text.ids, text.lengths)

    def origins(self, tokens: Ragged, sentences: Ragged, keys: Keys) -> Ragged:
        """Return the index in `tokens.values` that each token of the noised samples comes from.

        The index of a new token (<mask> or a random token) is -1. Arguments as in `__call__`.
        """
        text = self._noise(tokens, sentences, keys)
        return Ragged(text.origins, text.lengths)

    def _noise(self, tokens: Ragged, sentences: Ragged, keys: Keys) -> Text:
        owners = np.repeat(np.arange(len(keys)), sentences.lengths)
        numbers = np.arange(len(owners)) - sentences.starts[owners]
        text = Text(
            tokens.values.copy(),
            tokens.lengths,
            np.repeat(numbers, sentences.values),
            np.arange(len(tokens.values)),
        )
        for scheme in self._config.schemes:
            part = SCHEME_KEYS.get(scheme)
            text = self._apply(scheme, text, keys if part is None else derive(keys, part))
        return text

    def _apply(self, scheme: str, text: Text, keys: Keys) -> Text:
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
            begins = self._tokens(text) if fairseq else self._words(text)
            return insert(text, number, keys, config, self._new, begins)
        if config.mask_ratio == 0:
            return text
        tokens = config.mask_length == "subword" or not config.whole_words
        if scheme == "infill" and not tokens:
            begins = self._words(text)
        else:
            begins = self._tokens(text)
        single = scheme != "infill" or config.mask_length != "span-poisson"
        replace = {"mask": 1, "delete": 0, "infill": config.replace_length}[scheme]
        return fill(text, begins, keys, config, self._new, single=single, replace=replace)

    def _words(self, text: Text) -> Flags:
        return text.sentence_begins() | self._word_starts[text.ids]

    def _tokens(self, text: Text) -> Flags:
        return np.ones(len(text.ids), dtype=bool)
