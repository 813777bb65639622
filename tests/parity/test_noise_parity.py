"""Noise against the formulas of fairseq's DenoisingDataset, re-stated here one sample at a time.

Judge: means of statistics of real samples. Tolerance: 4.5 standard errors of the difference.
"""

from __future__ import annotations

import json
import os
from math import ceil
from pathlib import Path

import numpy as np
import pytest

from bart_cli.config.data import DenoisingConfig
from bart_cli.data.denoising import Denoiser, Ragged
from bart_cli.data.random_keys import derive
from bart_cli.data.words import word_starts
from bart_cli.tokenizer import Tokenizer

# 10,000 with BART_NOISE_SAMPLES=10000: a minute of one core.
SAMPLES = int(os.environ.get("BART_NOISE_SAMPLES", "1000"))
MASK, RANDOM = -1, -2  # besides positions in the original
Row = list[int]


@pytest.fixture(scope="module")
def tokenizer(shared_data: Path) -> Tokenizer:
    return Tokenizer.from_pretrained(shared_data / "bart-tokenizer")


@pytest.fixture(scope="module")
def samples(shared_data: Path, tokenizer: Tokenizer) -> tuple[Ragged, Ragged]:
    """Extract spans of 24 to 71 tokens from real articles; sentences end at a full stop."""
    rng = np.random.default_rng(0)
    articles = [
        json.loads(line)["article"]
        for split in ("train", "validation", "test")
        for line in (shared_data / "cnn_dm" / f"{split}.jsonl").open(encoding="utf-8")
    ]
    (full_stop,) = tokenizer.encode_batch(["."], special=False)[0]
    rows: list[np.ndarray] = []
    for ids in tokenizer.encode_batch(articles, special=False):
        begin = 0
        while len(ids) - begin > 24 and len(rows) < SAMPLES:
            end = begin + int(rng.integers(24, 72))
            rows.append(np.array(ids[begin:end]))
            begin = end
    assert len(rows) == SAMPLES
    lengths = []
    for row in rows:
        stop = row == full_stop
        stop[-1] = True
        ends = np.flatnonzero(stop[1:] & ~stop[:-1]) + 2
        ends[-1:] = len(row)
        lengths.append(np.diff(ends, prepend=0) if len(ends) else np.array([len(row)]))
    return ragged(rows), ragged(lengths)


def ragged(rows: list[np.ndarray]) -> Ragged:
    return Ragged(np.concatenate(rows), np.array([len(row) for row in rows]))


class Fairseq:
    """Noise one sample after the other, into lists of positions, MASK and RANDOM."""

    def __init__(self, config: DenoisingConfig) -> None:
        self.config = config
        self.rng = np.random.default_rng(1)

    def noise(self, begins: np.ndarray, sentences: np.ndarray) -> Row:
        config, row = self.config, list(range(len(begins)))
        if "permute" in config.schemes:
            row = self.permute(row, np.split(np.array(row), np.cumsum(sentences)[:-1]))
            sentence_begins = set((np.cumsum(sentences) - sentences).tolist())
            begins = np.array([begins[i] or i in sentence_begins for i in row])
        if "infill" in config.schemes:
            row = self.infill(row, begins, config.mask_length, config.replace_length)
        if "mask" in config.schemes:
            row = self.infill(row, np.ones(len(row), bool), "subword", 1)
        if "delete" in config.schemes:
            row = self.infill(row, np.ones(len(row), bool), "subword", 0)
        if "insert" in config.schemes:
            row = self.insert(row, ceil((len(row) + 2) * config.insert_ratio))
        if "rotate" in config.schemes and self.rng.random() < config.rotate_ratio:
            cut = int(self.rng.integers(0, len(row) + 1))
            row = row[cut:] + row[:cut]
        return row

    def permute(self, row: Row, sentences: list[np.ndarray]) -> Row:
        count = ceil(len(sentences) * self.config.permute_ratio)
        chosen = self.rng.permutation(len(sentences))[:count]
        arranged = list(sentences)
        for place, other in zip(chosen, self.rng.permutation(chosen), strict=True):
            arranged[place] = sentences[other]
        return [int(i) for sentence in arranged for i in sentence]

    def infill(self, row: Row, begins: np.ndarray, unit: str, replace: int) -> Row:
        words = np.split(np.array(row), np.flatnonzero(begins)[1:])
        wanted = ceil(np.float32(len(words)) * np.float32(self.config.mask_ratio))
        spans = [1] * wanted
        if unit == "span-poisson":
            spans = []
            while sum(spans) < wanted:
                spans.append(int(self.rng.poisson(self.config.poisson_lambda)))
            spans[-1] -= sum(spans) - wanted
        insertions = spans.count(0)
        spans = [span for span in spans if span]
        starts = self.rng.permutation(len(words))[: len(spans)].tolist()
        new = {s: RANDOM if self.rng.random() < self.config.random_ratio else MASK for s in starts}
        inside, covered = set(), set(starts)
        for start, span in zip(starts, spans, strict=True):
            inside |= set(range(start + 1, start + span))
        covered |= inside
        out: Row = []
        latest = MASK
        for number, word in enumerate(words):
            latest = new.get(number, latest)
            if number not in covered:
                out += word.tolist()
            elif replace == -1:
                out += [latest] * len(word)
            elif replace == 1 and number not in inside:
                out.append(latest)
        return self.insert(out, insertions) if insertions else out

    def insert(self, row: Row, count: int) -> Row:
        total = len(row) + count
        places = self.rng.permutation(total)[:count]
        random = set(places[: ceil(count * self.config.random_ratio)].tolist())
        new = set(places.tolist())
        rest = iter(row)
        return [(RANDOM if i in random else MASK) if i in new else next(rest) for i in range(total)]


def statistics(row: Row, length: int) -> list[float]:
    """Compute statistics of one sample that distinguish the schemes."""
    ids = np.array(row)
    old = ids[ids >= 0]
    kept = np.diff(ids)[(ids[1:] >= 0) & (ids[:-1] >= 0)] == 1
    masked = ids == MASK
    return [
        len(ids) - length,
        int(masked.sum()),
        int((ids == RANDOM).sum()),
        len(old) / length,
        int(kept.sum()) / length,
        int((masked[1:] & masked[:-1]).sum()),
        float(np.abs(np.arange(len(old)) - old).mean() / length) if len(old) else 0.0,
        float(ids[0] == 0),
        float(ids[0] / length),
    ]


@pytest.mark.parametrize(
    "settings",
    [
        {"schemes": ["permute"]},
        {"schemes": ["permute"], "permute_ratio": 0.5},
        {"schemes": ["mask"], "mask_ratio": 0.15},
        {"schemes": ["delete"]},
        {"schemes": ["infill"]},
        {"schemes": ["infill"], "mask_length": "word", "random_ratio": 0.5},
        {"schemes": ["infill"], "replace_length": 0, "poisson_lambda": 1.0},
        {"schemes": ["infill"], "replace_length": -1, "poisson_lambda": 3.0},
        {"schemes": ["insert", "rotate"], "insert_ratio": 0.2, "rotate_ratio": 0.5},
        {"schemes": ["permute", "infill", "insert", "rotate"], "mask_ratio": 0.35},
    ],
    ids=str,
)
def test_statistics_agree_with_fairseq(
    settings: dict[str, object], tokenizer: Tokenizer, samples: tuple[Ragged, Ragged]
) -> None:
    config = DenoisingConfig.model_validate(
        settings | ({} if settings["schemes"] == ["permute"] else {"sampling": "fairseq"})
    )
    tokens, sentences = samples
    denoise = Denoiser(config, tokenizer)
    keys = derive(3, np.arange(SAMPLES, dtype=np.uint64))
    noised = denoise(tokens, sentences, keys)
    origins = denoise.origins(tokens, sentences, keys)
    words = word_starts(tokenizer)[tokens.values]
    fairseq = Fairseq(config)
    ours, theirs = [], []
    for index in range(SAMPLES):
        start, length = int(tokens.starts[index]), int(tokens.lengths[index])
        begins = words[start : start + length].copy()
        begins[0] = True
        lengths = sentences.row(index)
        begins[np.cumsum(lengths) - lengths] = True
        theirs.append(statistics(fairseq.noise(begins, lengths), length))
        places = origins.row(index)
        new = np.where(noised.row(index) == tokenizer.mask_id, MASK, RANDOM)
        row = np.where(places < 0, new, places - start).tolist()
        ours.append(statistics(row, length))
    one, two = np.array(ours), np.array(theirs)
    for power in (1, 2):
        a, b = one**power, two**power
        error = np.sqrt((a.var(0) + b.var(0)) / SAMPLES)
        assert (np.abs(a.mean(0) - b.mean(0)) <= 4.5 * error + 1e-12).all(), (
            a.mean(0),
            b.mean(0),
            np.abs(a.mean(0) - b.mean(0)) / np.maximum(error, 1e-12),
        )
