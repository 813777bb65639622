"""Sampling: the candidate tokens and the random numbers of each article.

The samples of an article depend on the seed and its own tokens, not on the rest of the batch.
"""

# Legend: A articles, R rows, V vocabulary.

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bart_cli.config.generation import GenerationConfig
from bart_cli.inference.constraints import NEVER


class NotFiniteError(ArithmeticError):
    """Scores are NaN: the arithmetic overflowed, or the weights hold NaN."""


TOP_H_TOKENS = 100  # top-h considers only the best few, as in Hugging Face


class Draws:
    """One random generator per article of a batch."""

    def __init__(
        self, sources: Sequence[Sequence[int]], seed: int, device: torch.device | str
    ) -> None:
        self._generators = [
            torch.Generator(device).manual_seed(_key(source, seed)) for source in sources
        ]

    def keep(self, articles: list[int]) -> None:
        """Keep only these articles."""
        self._generators = [self._generators[i] for i in articles]

    def multinomial(self, weights: Tensor, count: int) -> Tensor:
        """Draw `count` columns without replacement from every row: [A * n, V] -> [A * n, count].

        The n rows of an article are adjacent.
        """
        if bool(weights.isnan().any()):  # on a GPU, sampling from NaN would abort the process
            raise NotFiniteError
        parts = weights.chunk(len(self._generators))
        return torch.cat(
            [
                torch.multinomial(part, count, generator=generator)
                for part, generator in zip(parts, self._generators, strict=True)
            ]
        )


def warp(scores_RV: Tensor, generation: GenerationConfig, *, at_least: int) -> Tensor:
    """Set all but the candidate tokens to -inf; keep at least `at_least` tokens.

    Hugging Face's order: temperature, top-h (arXiv:2509.02510), top-k, top-p (Holtzman et al.
    2020), min-p (arXiv:2407.01082), typical (arXiv:2202.00666), epsilon and eta (Hewitt et al.
    2022).
    """
    if generation.temperature != 1.0:
        scores_RV = scores_RV / generation.temperature
    if generation.top_h is not None:
        best, index = scores_RV.topk(min(TOP_H_TOKENS, scores_RV.shape[1]))
        surprise = -best.log_softmax(-1)
        terms = torch.where(surprise.isinf(), 0.0, surprise.exp().reciprocal() * surprise)
        drop = terms.cumsum(-1) > terms.sum(-1, keepdim=True) * generation.top_h
        drop[:, 0] = False
        every = torch.ones_like(scores_RV, dtype=torch.bool).scatter(1, index, drop)
        scores_RV = scores_RV.masked_fill(every, NEVER)
    if generation.top_k:
        k = max(generation.top_k, at_least)
        scores_RV = scores_RV.masked_fill(scores_RV < _nth_best(scores_RV, k), NEVER)
    if generation.top_p < 1.0:
        ascending, order = scores_RV.sort(-1)
        drop = ascending.softmax(-1).cumsum(-1) <= 1 - generation.top_p
        drop[:, -at_least:] = False
        scores_RV = scores_RV.masked_fill(drop.scatter(1, order, drop), NEVER)
    if generation.min_p is not None:
        mass = scores_RV.softmax(-1)
        drop = mass < generation.min_p * mass.amax(-1, keepdim=True)
        best = mass.topk(min(at_least, mass.shape[1]))[1]
        scores_RV = scores_RV.masked_fill(drop.scatter(1, best, False), NEVER)
    if generation.typical_p < 1.0:
        surprise = -scores_RV.log_softmax(-1)
        entropy = (surprise * surprise.neg().exp()).nansum(-1, keepdim=True)
        distance, order = (surprise - entropy).abs().sort(-1)
        mass = scores_RV.gather(1, order).softmax(-1).cumsum(-1)
        last = (mass < generation.typical_p).sum(-1, keepdim=True).clamp(max=mass.shape[1] - 1)
        drop = distance > distance.gather(1, last)
        drop[:, :at_least] = False
        scores_RV = scores_RV.masked_fill(drop.scatter(1, order, drop), NEVER)
    if generation.epsilon_cutoff:
        drop = scores_RV.softmax(-1) < generation.epsilon_cutoff
        scores_RV = scores_RV.masked_fill(
            drop & (scores_RV < _nth_best(scores_RV, at_least)), NEVER
        )
    if generation.eta_cutoff:
        mass = scores_RV.softmax(-1)
        entropy = torch.special.entr(mass).sum(-1, keepdim=True)
        least = (generation.eta_cutoff**0.5 * entropy.neg().exp()).clamp(max=generation.eta_cutoff)
        drop = (mass < least) & (scores_RV < _nth_best(scores_RV, at_least))
        scores_RV = scores_RV.masked_fill(drop, NEVER)
    return scores_RV


def _nth_best(scores_RV: Tensor, n: int) -> Tensor:
    """Return the n-th best score of each row, [R, 1]."""
    return scores_RV.topk(min(n, scores_RV.shape[1]))[0][:, -1:]


def _key(source: Sequence[int], seed: int) -> int:
    """Hash the seed and an article's tokens to 63 bits."""
    tokens = np.asarray([seed, *source], dtype="<i8").tobytes()
    return int.from_bytes(hashlib.blake2b(tokens, digest_size=8).digest(), "little") >> 1
