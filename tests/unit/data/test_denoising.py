"""Properties of the noising schemes."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bart_cli.config.data import DenoisingConfig
from bart_cli.data.denoising import Denoiser, Ragged
from bart_cli.data.noise_spans import poisson_spans
from bart_cli.data.random_keys import derive
from bart_cli.data.words import word_starts
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
    texts = [" " + " ".join(sentence) for sample in samples for sentence in sample]
    encoded = iter(TOKENIZER.encode_batch(texts, special=False))
    rows = [[next(encoded) for _ in sample] for sample in samples]
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
    denoise = Denoiser(DenoisingConfig(schemes=("permute",)), TOKENIZER)
    moved = denoise.origins(tokens, sentences, keys_of(len(lengths), 3)).values
    sentence = np.repeat(np.arange(len(sentences.values)), sentences.values)
    runs = np.split(moved, np.flatnonzero(np.diff(sentence[moved])) + 1)
    assert sorted(sentence[run[0]] for run in runs) == list(range(len(sentences.values)))
    assert all((np.diff(run) == 1).all() for run in runs)
    owner = np.repeat(np.arange(len(lengths)), tokens.lengths)
    assert (owner[moved] == owner).all(), "a sentence left its sample"


def test_sentences_come_in_every_order() -> None:
    samples = [[["the"], ["mayor"], ["rain"]]] * 600
    orders = {tuple(row) for row in noise(samples, 0, mask_ratio=0.0)}
    assert len(orders) == 6


@given(KINDS, st.integers(0, 1000))
def test_tokens_are_only_lost_through_masks(samples: list[list[list[str]]], seed: int) -> None:
    tokens, _ = encode(samples)
    noised = noise(samples, seed, schemes=["infill"], random_ratio=0.0, mask_ratio=0.4)
    for index, row in enumerate(noised):
        rest = iter(tokens.row(index).tolist())
        kept = [token for token in row if token != TOKENIZER.mask_id]
        assert all(token in rest for token in kept), "the order of kept tokens changed"
        if TOKENIZER.mask_id not in row:
            assert row == tokens.row(index).tolist()


@given(KINDS, st.integers(0, 1000))
def test_spans_begin_and_end_at_words(samples: list[list[list[str]]], seed: int) -> None:
    starts = word_starts(TOKENIZER)
    for row in noise(samples, seed, schemes=["infill"], random_ratio=0.0):
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
        row, ends = (ragged([x.row(index).tolist()]) for x in (tokens, sentences))
        assert denoise(row, ends, keys[index : index + 1]).row(0).tolist() == expected


@pytest.mark.slow
@pytest.mark.parametrize(("ratio", "whole_words"), [(0.15, True), (0.3, False), (0.5, True)])
def test_the_share_of_masked_tokens_is_exact_over_thousands_of_samples(
    ratio: float, whole_words: bool
) -> None:
    generator = np.random.default_rng(0)
    samples = [
        [
            [WORDS[i] for i in generator.integers(0, len(WORDS), generator.integers(3, 25))]
            for _ in range(4)
        ]
        for _ in range(1500)
    ]
    noised = noise(samples, 7, mask_ratio=ratio, random_ratio=0.0, whole_words=whole_words)
    total = len(encode(samples)[0].values)
    kept = sum(token != TOKENIZER.mask_id for row in noised for token in row)
    assert 1 - kept / total == pytest.approx(ratio, rel=0.01)


def test_a_tenth_of_the_masks_become_random_ordinary_tokens() -> None:
    samples = [[WORDS] * 8] * 1000
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
    noised = noise(samples, 5, poisson_lambda=0.5, random_ratio=0.0, schemes=["infill"])
    lengths = [sum(word_starts(TOKENIZER)[row]) for row in noised]  # <mask> counts as a word
    # With lambda 0.5, most draws are zero, so more masks are inserted than words removed.
    assert np.mean(lengths) > words


def test_span_lengths_follow_the_poisson_distribution() -> None:
    lengths, counts = poisson_spans(np.full(2000, 90), keys_of(2000, 1), 3.5)
    inner = np.concatenate([row[: n - 1] for row, n in zip(lengths, counts, strict=True)])
    assert inner.mean() == pytest.approx(3.5, rel=0.03)  # the last one is shortened
    assert inner.var() == pytest.approx(3.5, rel=0.06)
    assert (lengths.sum(1) == 90).all()


@pytest.mark.parametrize("rate", [1e-9, 0.0, float("nan"), float("inf"), 51])
def test_spans_too_long_for_memory_are_refused(rate: float) -> None:
    """With a tiny mean length, an enormous number of spans would be needed to cover the ratio."""
    with pytest.raises(ValidationError, match="poisson_lambda"):
        DenoisingConfig(poisson_lambda=rate)


SETTINGS = st.fixed_dictionaries(
    {
        "schemes": st.lists(
            st.sampled_from(["permute", "mask", "delete", "infill", "insert", "rotate"]),
            min_size=1,
            unique=True,
        ),
    },
    optional={
        "sampling": st.sampled_from(["exact", "fairseq"]),
        "mask_ratio": st.sampled_from([0.15, 0.95]),
        "mask_length": st.sampled_from(["subword", "word", "span-poisson"]),
        "replace_length": st.sampled_from([0, 1, -1]),
        "insert_ratio": st.sampled_from([0.05, 1.0]),
        "rotate_ratio": st.just(0.5),
        "permute_ratio": st.just(0.5),
    },
)


@settings(max_examples=50)
@given(KINDS, st.integers(0, 1000), SETTINGS)
def test_every_noise_recipe_has_its_documented_effect(
    samples: list[list[list[str]]], seed: int, given: dict[str, object]
) -> None:
    config = DenoisingConfig()
    for key, value in given.items():  # without settings that have no effect
        try:
            config = DenoisingConfig.model_validate(
                config.model_dump() | {"schemes": given["schemes"], key: value}
            )
        except ValidationError:
            continue
    denoise, (tokens, sentences) = Denoiser(config, TOKENIZER), encode(samples)
    before = tokens.values.copy()
    keys = keys_of(len(samples), seed)
    noised, origins = denoise(tokens, sentences, keys), denoise.origins(tokens, sentences, keys)
    assert (tokens.values == before).all(), "the labels changed"
    assert (noised.lengths == origins.lengths).all()
    old = origins.values >= 0
    assert (noised.values[old] == tokens.values[origins.values[old]]).all()
    assert len(set(origins.values[old].tolist())) == old.sum(), "a token was doubled"
    schemes = set(config.schemes)
    for index in range(len(samples)):
        places, length = origins.row(index), int(tokens.lengths[index])
        assert len(places) > 0, "an empty source"
        begin = tokens.starts[index]
        assert ((places < 0) | ((places >= begin) & (places < begin + length))).all()
        if schemes <= {"permute", "rotate"}:
            assert sorted(places - begin) == list(range(length))
        if schemes <= {"permute", "rotate", "mask"}:
            assert len(places) == length
        if schemes <= {"permute", "rotate", "delete"}:
            assert len(places) <= length
        if "infill" not in schemes:
            added = np.ceil((length + 2) * config.insert_ratio) if "insert" in schemes else 0
            assert len(places) <= length + added
        assert TOKENIZER.decode(noised.row(index).tolist(), skip_special=False)
    row, ends = (ragged([rows.row(index).tolist()]) for rows in (tokens, sentences))
    alone = denoise(row, ends, keys[index : index + 1])
    assert alone.row(0).tolist() == noised.row(index).tolist(), "noise depends on the batch"


def test_a_share_of_the_sentences_moves_and_the_cut_of_a_rotation_is_uniform() -> None:
    samples = [[[word] for word in WORDS[:10]]] * 3000
    tokens, sentences = encode(samples)
    keys = keys_of(len(samples), 4)
    half = Denoiser(DenoisingConfig(schemes=("permute",), permute_ratio=0.3), TOKENIZER)
    sentence = np.repeat(np.arange(len(sentences.values)), sentences.values)
    moved = sentence[half.origins(tokens, sentences, keys).values].reshape(3000, -1)
    original = sentence.reshape(3000, -1)
    at_home = [set(a[a == b]) for a, b in zip(moved, original, strict=True)]
    assert min(map(len, at_home)) >= 7 or sentences.values[:10].max() > 1
    turn = Denoiser(DenoisingConfig(schemes=("rotate",), rotate_ratio=0.5), TOKENIZER)
    origins = turn.origins(tokens, sentences, keys)
    first = origins.values[origins.starts] - tokens.starts
    length = int(tokens.lengths[0])
    assert (first == 0).mean() == pytest.approx(0.5 + 0.5 / length, abs=0.04)
    assert np.bincount(first[first > 0]).argmax() < length
    assert first[first > 0].mean() == pytest.approx(length / 2, rel=0.05)


def test_older_files_say_permute_sentences() -> None:
    assert DenoisingConfig.model_validate({"permute_sentences": False}).schemes == ("infill",)
    assert DenoisingConfig.model_validate({"permute_sentences": True}) == DenoisingConfig()
    with pytest.raises(ValidationError, match="permute_sentences"):
        DenoisingConfig.model_validate({"permute_sentences": "no"})


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"schemes": ["infill", "infill"]}, "occurs twice"),
        ({"schemes": ["shuffle"]}, "'permute', 'mask', 'delete', 'infill', 'insert' or 'rotate'"),
        ({"schemes": []}, "at least 1"),
        ({"schemes": ["mask"], "replace_length": 0}, "replace_length=0 has no effect with schemes"),
        ({"mask_length": "word", "poisson_lambda": 3.0}, "with mask_length=word"),
        ({"schemes": ["delete"], "random_ratio": 0.2}, "random_ratio=0.2 has no effect"),
        ({"rotate_ratio": 0.5}, "rotate_ratio=0.5 has no effect"),
        ({"replace_length": 2}, "0, 1 or -1"),
    ],
)
def test_meaningless_recipes_are_refused(config: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        DenoisingConfig.model_validate(config)


# Recipes with the digest of their noise, which never changes: runs would no longer resume exactly.
RECORDED: list[tuple[dict[str, object], str]] = [
    ({}, "51be4739410c1fdd"),
    ({"mask_ratio": 0.0}, "3eb3cb02bfda39de"),
    ({"schemes": ["infill"], "poisson_lambda": 0.5, "random_ratio": 0.0}, "a3c3065f501ef59d"),
    ({"schemes": ["infill"], "whole_words": False, "random_ratio": 0.5}, "040a0d550bd376e7"),
    ({"schemes": ["infill"], "mask_length": "word", "replace_length": -1}, "6b0c8d0ce3535c9d"),
    (
        {"schemes": ["infill", "permute"], "replace_length": 0, "poisson_lambda": 1.0},
        "345a9d5d3218f215",
    ),
    (
        {"schemes": ["rotate", "permute", "infill"], "replace_length": -1, "rotate_ratio": 0.5},
        "4994bf1a3945e695",
    ),
    (
        {"schemes": ["permute", "insert"], "permute_ratio": 0.5, "insert_ratio": 0.3},
        "979a362b2aa2f4f3",
    ),
    ({"schemes": ["mask", "insert", "rotate", "permute"], "random_ratio": 0.3}, "f5e983099375a06d"),
    ({"schemes": ["delete", "permute", "infill"], "mask_ratio": 0.5}, "9e975256d4febda7"),
    ({"sampling": "fairseq", "mask_ratio": 0.5}, "2e35ddf905048c60"),
    ({"sampling": "fairseq", "replace_length": -1, "random_ratio": 0.5}, "4d8c07603a064220"),
    ({"sampling": "fairseq", "replace_length": 0, "poisson_lambda": 0.5}, "050d9ab0392776d0"),
    (
        {"sampling": "fairseq", "schemes": ["infill", "insert", "rotate", "permute"]}
        | {"insert_ratio": 0.3, "rotate_ratio": 0.5, "permute_ratio": 0.5},
        "a74b729664df6a53",
    ),
]


@pytest.fixture(scope="module")
def recorded_samples() -> tuple[Ragged, Ragged]:
    """200 samples of 1 to 5 sentences of 1 to 9 words; one also has sentences of no tokens."""
    numbers = derive(1, np.arange(20_000, dtype=np.uint64)).tolist()
    samples = [
        [
            [WORDS[numbers.pop() % len(WORDS)] for _ in range(1 + numbers.pop() % 9)]
            for _ in range(1 + numbers.pop() % 5)
        ]
        for _ in range(200)
    ]
    tokens, sentences = encode(samples)
    lengths = [sentences.row(index).tolist() for index in range(200)]
    lengths[7] = [0, *lengths[7], 0]
    return tokens, ragged(lengths)


@pytest.mark.parametrize(("given", "digest"), RECORDED, ids=str)
def test_noise_is_that_of_earlier_versions(
    given: dict[str, object], digest: str, recorded_samples: tuple[Ragged, Ragged]
) -> None:
    denoise = Denoiser(DenoisingConfig.model_validate(given), TOKENIZER)
    found = hashlib.sha256()
    for function in (denoise, denoise.origins):
        noised = function(*recorded_samples, keys_of(200, 5))
        for part in (noised.values, noised.lengths):
            assert part.dtype == np.int64
            found.update(part.tobytes())
    assert found.hexdigest()[:16] == digest
