"""Properties of the noise."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bart_cli.config.data import DenoisingConfig
from bart_cli.data.denoising import Denoiser, Ragged, _permute
from bart_cli.data.random_keys import derive
from bart_cli.tokenizer import Tokenizer

WORDS = "the mayor opened a new bridge on monday and heavy rain had closed it".split()
TOKENIZER = Tokenizer.train([" ".join(WORDS)] * 50, vocab_size=320)
KINDS = st.lists(  # samples of sentences of words
    st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=12), min_size=1, max_size=6),
    min_size=1,
    max_size=8,
)


def encode(samples: list[list[list[str]]]) -> tuple[Ragged, Ragged]:
    """Samples of sentences of words -> tokens and sentence lengths."""
    rows = [
        TOKENIZER.encode_batch([" " + " ".join(s) for s in sample], special=False)
        for sample in samples
    ]
    tokens = [[token for sentence in row for token in sentence] for row in rows]
    lengths = [[len(sentence) for sentence in row] for row in rows]
    return ragged(tokens), ragged(lengths)


def ragged(rows: list[list[int]]) -> Ragged:
    flat = np.array([value for row in rows for value in row], dtype=np.int64)
    return Ragged(flat, np.array([len(row) for row in rows], dtype=np.int64))


def keys_of(count: int, seed: int) -> np.ndarray:
    return derive(seed, np.arange(count, dtype=np.uint64))


def noise(samples: list[list[list[str]]], seed: int, **config: object) -> list[list[int]]:
    tokens, sentences = encode(samples)
    denoise = Denoiser(DenoisingConfig.model_validate(config), TOKENIZER)
    out = denoise(tokens, sentences, keys_of(len(samples), seed))
    return [out.row(i).tolist() for i in range(len(samples))]


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=8))
def test_sentences_are_permuted_as_whole_sentences(lengths: list[list[int]]) -> None:
    sentences = ragged(lengths)
    tokens = Ragged(
        np.arange(sentences.values.sum()), np.array([sum(row) for row in lengths], dtype=np.int64)
    )
    moved, begins = _permute(tokens, sentences, keys_of(len(lengths), 3), True)
    pieces = np.split(moved, np.flatnonzero(begins)[1:])
    starts = np.cumsum(sentences.values) - sentences.values
    whole = {(int(a), int(n)) for a, n in zip(starts, sentences.values, strict=True)}
    assert {(int(piece[0]), len(piece)) for piece in pieces} == whole
    assert all((np.diff(piece) == 1).all() for piece in pieces)
    owner = np.repeat(np.arange(len(lengths)), tokens.lengths)
    assert (owner[moved] == owner).all(), "a sentence left its sample"


def test_sentences_come_in_every_order() -> None:
    samples = [[["the"], ["mayor"], ["rain"]]] * 600
    orders = {tuple(row) for row in noise(samples, 0, mask_ratio=0.0)}
    assert len(orders) == 6


@given(KINDS, st.integers(0, 1000))
def test_no_token_is_lost_but_through_masks(samples: list[list[list[str]]], seed: int) -> None:
    tokens, _ = encode(samples)
    noised = noise(samples, seed, permute_sentences=False, random_ratio=0.0, mask_ratio=0.4)
    for index, row in enumerate(noised):
        rest = iter(tokens.row(index).tolist())
        kept = [token for token in row if token != TOKENIZER.mask_id]
        assert all(token in rest for token in kept), "the order of kept tokens changed"
        if TOKENIZER.mask_id not in row:
            assert row == tokens.row(index).tolist()


@given(KINDS, st.integers(0, 1000))
def test_spans_begin_and_end_at_words(samples: list[list[list[str]]], seed: int) -> None:
    starts = TOKENIZER.word_starts()
    for row in noise(samples, seed, permute_sentences=False, random_ratio=0.0):
        after_mask = [b for a, b in pairwise(row) if a == TOKENIZER.mask_id]
        assert all(starts[token] for token in after_mask)


@settings(max_examples=30)
@given(KINDS, st.integers(0, 1000))
def test_the_same_sample_gets_the_same_noise_whatever_the_batch(
    samples: list[list[list[str]]], seed: int
) -> None:
    together = noise(samples, seed)
    tokens, sentences = encode(samples)
    denoise = Denoiser(DenoisingConfig(), TOKENIZER)
    keys = keys_of(len(samples), seed)
    for index, expected in enumerate(together):
        one = (ragged([x.row(index).tolist()]) for x in (tokens, sentences))
        assert denoise(*one, keys[index : index + 1]).row(0).tolist() == expected


@pytest.mark.parametrize("whole_words", [True, False])
@pytest.mark.parametrize("ratio", [0.15, 0.3, 0.5])
def test_the_share_of_masked_tokens_is_exact_over_ten_thousand_samples(
    ratio: float, whole_words: bool
) -> None:
    generator = np.random.default_rng(0)
    samples = [
        [
            [WORDS[i] for i in generator.integers(0, len(WORDS), generator.integers(3, 25))]
            for _ in range(4)
        ]
        for _ in range(10_000)
    ]
    noised = noise(samples, 7, mask_ratio=ratio, random_ratio=0.0, whole_words=whole_words)
    total = len(encode(samples)[0].values)
    kept = sum(token != TOKENIZER.mask_id for row in noised for token in row)
    assert 1 - kept / total == pytest.approx(ratio, rel=0.01)


def test_a_tenth_of_the_masks_become_random_ordinary_tokens() -> None:
    samples = [[WORDS] * 8] * 2000
    plain = noise(samples, 3, random_ratio=0.0)
    mixed = noise(samples, 3, random_ratio=0.1)
    pairs = [
        (a, b) for one, two in zip(plain, mixed, strict=True) for a, b in zip(one, two, strict=True)
    ]
    masks = [b for a, b in pairs if a == TOKENIZER.mask_id]
    replaced = [token for token in masks if token != TOKENIZER.mask_id]
    assert len(replaced) / len(masks) == pytest.approx(0.1, abs=0.01)
    assert all(token >= 4 for token in replaced)
    assert all(a == b for a, b in pairs if a != TOKENIZER.mask_id)


def test_spans_of_length_zero_insert_masks() -> None:
    samples = [[WORDS] * 3] * 500
    words = len(WORDS) * 3
    noised = noise(samples, 5, poisson_lambda=0.5, random_ratio=0.0, permute_sentences=False)
    lengths = [sum(TOKENIZER.word_starts()[row]) for row in noised]  # <mask> counts as a word
    # With lambda 0.5 most draws are zero, so that more masks come in than words go.
    assert np.mean(lengths) > words


def test_span_lengths_follow_the_poisson_distribution() -> None:
    denoise = Denoiser(DenoisingConfig(poisson_lambda=3.5), TOKENIZER)
    lengths, counts = denoise._spans(np.full(2000, 300), keys_of(2000, 1))
    inner = np.concatenate([row[: n - 1] for row, n in zip(lengths, counts, strict=True)])
    assert inner.mean() == pytest.approx(3.5, rel=0.03)  # the last of a row is cut to fit
    assert inner.var() == pytest.approx(3.5, rel=0.06)
    assert (lengths.sum(1) == 90).all()


@pytest.mark.parametrize("rate", [1e-9, 0.0, float("nan"), float("inf"), 51])
def test_spans_that_no_memory_holds_are_refused(rate: float) -> None:
    """With spans of next to nothing, next to infinitely many are drawn to cover the ratio."""
    with pytest.raises(ValidationError, match="poisson_lambda"):
        DenoisingConfig(poisson_lambda=rate)
