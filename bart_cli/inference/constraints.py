"""Constraints on the scores of the next token, vectorized over rows.

In: scores [R, V] (logits or log-probabilities) and the tokens so far [R, T], with the start
token. Out: scores. Order and meaning follow Hugging Face's logits processors. A setting
that is off costs nothing. No branch or shape depends on values on the device.
"""

# Legend: A articles, R rows, T tokens so far, S source, V vocabulary, N ids.

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bart_cli.config.generation import GenerationConfig
from bart_cli.config.model import ModelConfig

NEVER = float("-inf")
Constraint = Callable[[Tensor, Tensor], Tensor]


class Constraints:
    """Apply all constraints of a batch of articles, whose token ids are `sources`."""

    def __init__(
        self,
        generation: GenerationConfig,
        model: ModelConfig,
        sources: Sequence[Sequence[int]],
        device: torch.device | str,
    ) -> None:
        ids = partial(torch.tensor, dtype=torch.int64, device=device)
        ends = [model.eos_token_id] if generation.end_tokens is None else generation.end_tokens
        last = generation.forced_eos_tokens
        self.end_ids = ids(ends)
        self._last_ids = ids([model.eos_token_id] if last is None else last)
        first = generation.forced_bos_token
        self._first_id = model.bos_token_id if first is None else first
        self._generation = generation
        self._source: Tensor | None = None
        if generation.encoder_repetition_penalty != 1.0 or generation.encoder_no_repeat_ngram:
            width = max(map(len, sources))
            # -1 is no token: padding never matches, whatever the batch.
            self._source = ids([[*row, *[-1] * (width - len(row))] for row in sources])
        # Constraints that run before token forcing, and those that run after it.
        self._before = self._scoring(generation, partial(torch.tensor, device=device))
        self._after = self._suppression(generation, ids)

    def keep(self, articles: Tensor) -> None:
        """Keep only these articles, indices [A']."""
        if self._source is not None:
            self._source = self._source[articles]

    def __call__(self, scores_RV: Tensor, tokens_RT: Tensor) -> Tensor:
        """Set forbidden tokens to -inf; may modify `scores_RV` in place."""
        generation, length = self._generation, tokens_RT.shape[1]
        # Test the end first: in a one-token hypothesis, the first token is also the last.
        if generation.forced_eos and length == generation.max_length - 1:
            scores_RV = torch.full_like(scores_RV, NEVER).index_fill_(1, self._last_ids, 0.0)
        elif generation.forced_bos and length == 1:
            scores_RV = torch.full_like(scores_RV, NEVER)
            scores_RV[:, self._first_id] = 0.0
        else:
            for constraint in self._before:
                scores_RV = constraint(scores_RV, tokens_RT)
        for constraint in self._after:
            scores_RV = constraint(scores_RV, tokens_RT)
        return scores_RV

    def _scoring(
        self, generation: GenerationConfig, floats: Callable[[Any], Tensor]
    ) -> list[Constraint]:
        steps: list[Constraint] = []
        if generation.sequence_bias:
            steps += [SequenceBias(generation.sequence_bias, floats)]
        if (reward := generation.encoder_repetition_penalty) != 1.0:
            steps.append(lambda scores, _: self._reward_source(scores, reward))
        if (penalty := generation.repetition_penalty) != 1.0:
            steps.append(lambda scores, tokens: penalize_repetition(scores, tokens, penalty))
        if size := generation.no_repeat_ngram:
            steps.append(lambda scores, tokens: forbid_ngrams(scores, tokens, tokens, size))
        if source_size := generation.encoder_no_repeat_ngram:
            steps.append(
                lambda scores, tokens: forbid_ngrams(
                    scores, tokens, self._rows(scores), source_size
                )
            )
        ends = [(end,) for end in self.end_ids.tolist()]
        if bad := [(word, NEVER) for word in generation.bad_words if word not in ends]:
            steps.append(SequenceBias(bad, floats))
        if generation.min_length:
            steps.append(self._forbid_early_end)
        if generation.exponential_decay_length_penalty is not None:
            steps.append(self._favor_end)  # does not affect forced tokens
        return steps

    def _suppression(
        self, generation: GenerationConfig, ids: Callable[[Sequence[int]], Tensor]
    ) -> list[Constraint]:
        steps: list[Constraint] = []
        if generation.suppress_tokens:
            never = ids(generation.suppress_tokens)
            steps.append(lambda scores, _: scores.index_fill(1, never, NEVER))
        if generation.begin_suppress_tokens:
            at = 1 + generation.forced_bos
            not_first = ids(generation.begin_suppress_tokens)
            steps.append(
                lambda scores, tokens: (
                    scores.index_fill(1, not_first, NEVER) if tokens.shape[1] == at else scores
                )
            )
        return steps

    def _forbid_early_end(self, scores_RV: Tensor, tokens_RT: Tensor) -> Tensor:
        if tokens_RT.shape[1] < self._generation.min_length:
            scores_RV.index_fill_(1, self.end_ids, NEVER)
        return scores_RV

    def _favor_end(self, scores_RV: Tensor, tokens_RT: Tensor) -> Tensor:
        assert self._generation.exponential_decay_length_penalty is not None
        start, factor = self._generation.exponential_decay_length_penalty
        beyond = tokens_RT.shape[1] - start - 1
        if beyond > 0:
            ends = scores_RV[:, self.end_ids]
            try:
                growth = factor**beyond - 1
            except OverflowError:
                growth = math.inf  # the search reports scores that are not finite
            bonus = torch.where(ends.isfinite(), ends.abs() * growth, 0.0)
            scores_RV = scores_RV.index_copy(1, self.end_ids, ends + bonus)
        return scores_RV

    def _reward_source(self, scores_RV: Tensor, penalty: float) -> Tensor:
        source_RS = self._rows(scores_RV)
        first = source_RS[:, :1]  # stands in for padding
        source_RS = torch.where(source_RS < 0, first, source_RS)
        return penalize_repetition(scores_RV, source_RS, 1 / penalty)

    def _rows(self, scores_RV: Tensor) -> Tensor:
        """Repeat each article's source for its rows, [R, S]."""
        assert self._source is not None
        return self._source.repeat_interleave(len(scores_RV) // len(self._source), 0)


class SequenceBias:
    """Add a bias to the last id of a sequence where the ids before it match."""

    def __init__(
        self,
        biases: Sequence[tuple[tuple[int, ...], float]],
        tensor: Callable[[Any], Tensor],
    ) -> None:
        by_length: dict[int, list[tuple[tuple[int, ...], float]]] = {}
        for ids, bias in dict(biases).items():
            by_length.setdefault(len(ids), []).append((ids, bias))
        self._groups = [
            (
                tensor([ids[:-1] for ids, _ in group]).long(),  # [N, length - 1]
                tensor([ids[-1] for ids, _ in group]),  # [N]
                tensor([bias for _, bias in group]).float(),
            )
            for group in by_length.values()
        ]

    def __call__(self, scores_RV: Tensor, tokens_RT: Tensor) -> Tensor:
        bias_RV = torch.zeros_like(scores_RV)
        for begin_NT, last_N, bias_N in self._groups:
            length = begin_NT.shape[1]
            if length > tokens_RT.shape[1]:
                continue
            end_RT = tokens_RT[:, tokens_RT.shape[1] - length :]
            match_RN = (end_RT[:, None] == begin_NT).all(-1)
            bias_RV.index_add_(1, last_N, torch.where(match_RN, bias_N, 0.0).to(bias_RV.dtype))
        return scores_RV + bias_RV


def penalize_repetition(scores_RV: Tensor, tokens_RT: Tensor, penalty: float) -> Tensor:
    """Penalize used tokens (CTRL): multiply negative scores by the penalty, divide others."""
    used = scores_RV.gather(1, tokens_RT)
    return scores_RV.scatter(1, tokens_RT, torch.where(used < 0, used * penalty, used / penalty))


def forbid_ngrams(scores_RV: Tensor, tokens_RT: Tensor, seen_RS: Tensor, size: int) -> Tensor:
    """Set to -inf, in place, every token that would complete an n-gram in `seen_RS`."""
    length = tokens_RT.shape[1]
    if length < size - 1 or seen_RS.shape[1] < size:
        return scores_RV
    begin = tokens_RT[:, length - size + 1 :]
    ngrams = seen_RS.unfold(1, size, 1)  # [R, S - size + 1, size]
    ends = ngrams[..., -1]
    seen = (ngrams[..., :-1] == begin[:, None]).all(-1) & (ends >= 0)
    # amin with +inf leaves the ends of other n-grams unchanged, so that no shape or branch depends
    # on the data.
    lowered = torch.where(seen, NEVER, -NEVER).to(scores_RV.dtype)
    return scores_RV.scatter_reduce_(1, ends.clamp(min=0), lowered, "amin")
