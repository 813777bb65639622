"""BART's noise: the schemes of a recipe, one after the other.

In: samples as flat token ids with the lengths of their sentences. Out: the noised ids. A batch
is noised at once in numpy; each sample's noise is a pure function of its own key.

Words are a token that begins one (see `words.py`) and those that follow it; `noise_schemes.py` has
the schemes themselves.
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

# Schemes whose random numbers have a key of their own; `permute` and `infill` take the sample's. A
# number never changes: runs would no longer resume bit for bit.
OWN_KEYS = {"mask": 11, "delete": 12, "insert": 13, "rotate": 14}


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
        self._word_starts = word_starts(tokenizer)
        ordinary = np.ones(tokenizer.vocab_size, dtype=bool)
        ordinary[list(tokenizer.special.values())] = False
        self._new = NewTokens(tokenizer.mask_id, np.flatnonzero(ordinary))

    def __call__(self, tokens: Ragged, sentences: Ragged, keys: Keys) -> Ragged:
        """Noised tokens of each sample.

        Args:
            tokens: [B] rows of ids, without <s> and </s>.
            sentences: [B] rows of sentence lengths; they add up to the sample's tokens.
            keys: [B], one per sample.
        """
        text = self._noise(tokens, sentences, keys)
        return Ragged(text.ids, text.lengths)

    def origins(self, tokens: Ragged, sentences: Ragged, keys: Keys) -> Ragged:
        """Where each token of the noised samples comes from: its index in `tokens.values`.

        -1 stands for a mask, or the random token in its place.
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
            own = OWN_KEYS.get(scheme)
            text = self._apply(scheme, text, keys if own is None else derive(keys, own))
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
            fairseq = config.sampling == "fairseq"  # counts <s> and </s>; may tear words
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
