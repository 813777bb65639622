"""Drawing tokens: temperature, top-k, top-p, and random numbers that belong to an article.

What is drawn for an article depends on the seed and on its own tokens, not on its neighbours.
"""

# Legend: A articles, R rows, V vocabulary.

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bart_cli.config.generation import GenerationConfig
from bart_cli.inference.constraints import NEVER


class Draws:
    """A generator for each article of a batch."""

    def __init__(
        self, sources: Sequence[Sequence[int]], seed: int, device: torch.device | str
    ) -> None:
        self._generators = [
            torch.Generator(device).manual_seed(_key(source, seed)) for source in sources
        ]

    def keep(self, articles: list[int]) -> None:
        """Only these articles stay."""
        self._generators = [self._generators[i] for i in articles]

    def multinomial(self, weights: Tensor, count: int) -> Tensor:
        """Draw `count` columns without replacement from every row: [A * n, V] -> [A * n, count].

        The rows of an article, n of them, stand together.
        """
        parts = weights.chunk(len(self._generators))
        return torch.cat(
            [
                torch.multinomial(part, count, generator=generator)
                for part, generator in zip(parts, self._generators, strict=True)
            ]
        )


def warp(scores_RV: Tensor, generation: GenerationConfig, *, at_least: int) -> Tensor:
    """Temperature, then top-k, then top-p (Holtzman et al. 2020), keeping `at_least` tokens."""
    scores_RV = scores_RV / generation.temperature
    if generation.top_k:
        k = min(max(generation.top_k, at_least), scores_RV.shape[1])
        worst = scores_RV.topk(k)[0][:, -1:]
        scores_RV = scores_RV.masked_fill(scores_RV < worst, NEVER)
    if generation.top_p < 1.0:
        ascending, order = scores_RV.sort(-1)
        drop = ascending.softmax(-1).cumsum(-1) <= 1 - generation.top_p
        drop[:, -at_least:] = False
        scores_RV = scores_RV.masked_fill(drop.scatter(1, order, drop), NEVER)
    return scores_RV


def _key(source: Sequence[int], seed: int) -> int:
    """63 bits from the seed and the tokens of an article."""
    tokens = np.asarray([seed, *source], dtype="<i8").tobytes()
    return int.from_bytes(hashlib.blake2b(tokens, digest_size=8).digest(), "little") >> 1
