"""Batches of random tokens whose lengths are those of real text.

In: sizes, limits and a seed. Out: rows of ids, or training batches; the same for the same seed.
"""

# Legend: B sequences, S source tokens, T target tokens.

from __future__ import annotations

import os
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from bart_cli.config.model import ModelConfig
from bart_cli.data.batch import IGNORE, Batch, shift_right
from bart_cli.data.collate import MULTIPLE
from bart_cli.data.denoising import Ids

POOL_TOKENS = 2**22  # of all batches that are kept
Lengths = Literal["real", "full"]

# Deciles (0%, 10% … 100%) of token counts of 700 CNN-DailyMail pairs under BART's BPE.
ARTICLES = (114, 274, 381, 493, 609, 720, 855, 971, 1145, 1398, 2208)
SUMMARIES = (14, 29, 33, 36, 40, 43, 48, 52, 56, 63, 88)
# A noised sample keeps 70% of its tokens and gets one <mask> for each span of 3.5 on average.
NOISED = 0.7 + 0.3 / 3.5


def check_memory(count: int, longest: int) -> None:
    """Raise before a batch is made whose ids alone (four tensors) do not fit this machine.

    Raises:
        MemoryError: see above.
    """
    if 4 * 8 * count * longest > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):
        raise MemoryError


def pool_size(count: int, longest: int, most: int) -> int:
    """How many different batches to use in turn: few of large ones, whose tokens are many."""
    return max(1, min(most, POOL_TOKENS // (count * longest)))


def draw_lengths(
    rng: np.random.Generator, deciles: tuple[int, ...], count: int, longest: int, lengths: Lengths
) -> Ids:
    """Token counts, drawn from a distribution given by its deciles and cut to `longest`."""
    if lengths == "full":
        return np.full(count, longest, dtype=np.int64)
    drawn = np.interp(rng.random(count), np.linspace(0, 1, len(deciles)), deciles)
    return np.clip(drawn.round().astype(np.int64), 3, longest)


def random_rows(rng: np.random.Generator, lengths_B: Ids, config: ModelConfig) -> NDArray[np.int64]:
    """Ids [B, S]: <s>, random tokens, </s>, padding, S a multiple of 8."""
    width = -(-int(lengths_B.max()) // MULTIPLE) * MULTIPLE
    special = max(config.bos_token_id, config.pad_token_id, config.eos_token_id) + 1
    rows = rng.integers(special, config.vocab_size, (len(lengths_B), width), dtype=np.int64)
    place = np.arange(width)
    rows[place[None] >= lengths_B[:, None]] = config.pad_token_id
    rows[:, 0] = config.bos_token_id
    rows[np.arange(len(rows)), lengths_B - 1] = config.eos_token_id
    return rows


def random_articles(
    rng: np.random.Generator, count: int, longest: int, config: ModelConfig, lengths: Lengths
) -> list[list[int]]:
    """Sources to decode, without padding."""
    drawn = draw_lengths(rng, ARTICLES, count, longest, lengths)
    rows = random_rows(rng, drawn, config)
    return [row[:length].tolist() for row, length in zip(rows, drawn.tolist(), strict=True)]


def random_pairs(
    rng: np.random.Generator,
    count: int,
    longest: tuple[int, int],
    config: ModelConfig,
    lengths: Lengths,
) -> Batch:
    """A fine-tuning batch: articles and summaries of random tokens."""
    return _batch(
        rng,
        draw_lengths(rng, ARTICLES, count, longest[0], lengths),
        draw_lengths(rng, SUMMARIES, count, longest[1], lengths),
        config,
    )


def random_samples(
    rng: np.random.Generator, count: int, longest: int, config: ModelConfig, lengths: Lengths
) -> Batch:
    """A pre-training batch: full samples, whose noised side is shorter unless `lengths` is full."""
    target = np.full(count, longest, dtype=np.int64)
    share = NOISED if lengths == "real" else 1.0
    return _batch(rng, np.maximum(3, (target * share).astype(np.int64)), target, config)


def _batch(rng: np.random.Generator, source_B: Ids, target_B: Ids, config: ModelConfig) -> Batch:
    source = torch.from_numpy(random_rows(rng, source_B, config))
    target = torch.from_numpy(random_rows(rng, target_B, config))
    lengths = torch.from_numpy(target_B)
    padding = torch.arange(target.shape[1])[None] >= lengths[:, None]
    return Batch(
        source=source,
        source_mask=torch.arange(source.shape[1])[None] < torch.from_numpy(source_B)[:, None],
        decoder_input=shift_right(
            target, start=config.decoder_start_token_id, pad_id=config.pad_token_id
        ),
        labels=target.masked_fill(padding, IGNORE),
    )
