"""Compare denoising on one core with per-sample code, on the same samples.

    python benchmarks/denoising.py SHARDS [--batch 64] [--samples 4096] [--repeats 5]

SHARDS is a folder of shards with 128 tokens. The other side is typical code in Python and NumPy
that noises one sample at a time, like the (Flax) denoising collator of transformers: permute the
sentences, draw Poisson spans until the budget is met, mark them in a mask, collapse runs.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from measure import ratios, run, spread

from bart_cli.config.data import DenoisingConfig
from bart_cli.data.denoising import Denoiser, Ragged
from bart_cli.data.random_keys import derive
from bart_cli.data.shards import find_tokenizer, open_shards, read_shard


def per_sample(
    tokens: np.ndarray, sentences: np.ndarray, rng: np.random.Generator, mask_id: int
) -> np.ndarray:
    """Permute and in-fill one sample."""
    parts = np.split(tokens, np.cumsum(sentences)[:-1])
    ids = np.concatenate([parts[i] for i in rng.permutation(len(parts))])
    budget = round(len(ids) * 0.3)
    masked = np.zeros(len(ids) + 1, dtype=bool)
    spans = []
    while budget > 0:
        span = min(int(rng.poisson(3.5)), budget)
        spans.append(span)
        budget -= max(span, 1)
    for span in spans:
        for _ in range(10):
            begin = int(rng.integers(0, max(1, len(ids) - span)))
            if not masked[begin : begin + span + 1].any():
                masked[begin : begin + span] = True
                break
    result = []
    for position, token in enumerate(ids):
        if not masked[position]:
            result.append(token)
        elif position == 0 or not masked[position - 1]:
            result.append(mask_id)
    return np.array(result)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shards", type=Path)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--samples", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    tokenizer = find_tokenizer(options.shards)
    rows: list[tuple[np.ndarray, ...]] = []
    for path in open_shards(options.shards).paths:
        shard = read_shard(path, tokenizer)
        sides = shard.tokens, shard.sentences
        rows += [
            tuple(s.row(i).astype(np.int64) for s in sides)
            for i in range(len(shard.tokens.lengths))
        ]
    rows = rows[: options.samples]
    batches = []
    for begin in range(0, len(rows), options.batch):
        tokens, sentences = (
            Ragged(np.concatenate(side), np.array([len(row) for row in side]))
            for side in zip(*rows[begin : begin + options.batch], strict=True)
        )
        batches.append((tokens, sentences, derive(0, np.arange(len(tokens.lengths)) + begin)))
    denoise = Denoiser(DenoisingConfig(), tokenizer)
    rng = np.random.default_rng(0)
    speeds: dict[str, list[float]] = {"per sample": [], "bart": []}
    denoise(*batches[0])
    for _ in range(options.repeats):
        begin_time = time.perf_counter()
        for tokens, sentences in rows:
            per_sample(tokens, sentences, rng, tokenizer.mask_id)
        speeds["per sample"].append(len(rows) / (time.perf_counter() - begin_time))
        begin_time = time.perf_counter()
        for batch in batches:
            denoise(*batch)
        speeds["bart"].append(len(rows) / (time.perf_counter() - begin_time))
    mean = np.mean([len(tokens) for tokens, _ in rows])
    print(f"{len(rows):,} samples of {mean:.0f} tokens, batches of {options.batch}, one core")
    for label, values in speeds.items():
        print(f"{label}: {spread(values, ',.0f', ' samples/s')}")
    print(f"ratio: {spread(ratios(speeds['bart'], speeds['per sample']), '.1f')}")


if __name__ == "__main__":
    run(main)
