"""What may come next: constraints on the scores of the next token, vectorised over rows.

In: scores [R, V] (logits or log-probabilities) and the tokens so far [R, T], the start token
included. Out: scores. Order and meaning are those of Hugging Face's logits processors.
"""

# Legend: R rows, T tokens so far, V vocabulary.

from __future__ import annotations

import torch
from torch import Tensor

from bart_cli.config.generation import GenerationConfig
from bart_cli.config.model import ModelConfig

NEVER = float("-inf")


def constrain(
    scores_RV: Tensor, tokens_RT: Tensor, generation: GenerationConfig, model: ModelConfig
) -> Tensor:
    """Scores with everything that is not allowed at -inf; may change `scores_RV` itself."""
    length = tokens_RT.shape[1]
    # The end first: a hypothesis of one token is both the first and the last.
    if generation.forced_eos and length == generation.max_length - 1:
        return _only(scores_RV, model.eos_token_id)
    if generation.forced_bos and length == 1:
        return _only(scores_RV, model.bos_token_id)
    if generation.repetition_penalty != 1.0:
        scores_RV = penalize_repetition(scores_RV, tokens_RT, generation.repetition_penalty)
    if generation.no_repeat_ngram:
        scores_RV = forbid_repeated_ngrams(scores_RV, tokens_RT, generation.no_repeat_ngram)
    if length < generation.min_length:
        scores_RV[:, model.eos_token_id] = NEVER
    return scores_RV


def penalize_repetition(scores_RV: Tensor, tokens_RT: Tensor, penalty: float) -> Tensor:
    """Scores of tokens that occurred: negative ones times, others over the penalty (CTRL)."""
    used = scores_RV.gather(1, tokens_RT)
    return scores_RV.scatter(1, tokens_RT, torch.where(used < 0, used * penalty, used / penalty))


def forbid_repeated_ngrams(scores_RV: Tensor, tokens_RT: Tensor, size: int) -> Tensor:
    """-inf, in place, for every token that would end an n-gram which the row already has."""
    length = tokens_RT.shape[1]
    if length < size:
        return scores_RV
    ngrams = tokens_RT.unfold(1, size, 1)  # [R, T - size + 1, size]
    begin = tokens_RT[:, None, length - size + 1 :]
    seen = (ngrams[..., :-1] == begin).all(-1)
    # The ends of a row's other n-grams are lowered to +inf, that is left alone: no shape and no
    # branch depends on the data.
    lowered = torch.where(seen, NEVER, -NEVER).to(scores_RV.dtype)
    return scores_RV.scatter_reduce_(1, ngrams[..., -1], lowered, "amin")


def _only(scores_RV: Tensor, token: int) -> Tensor:
    forced = torch.full_like(scores_RV, NEVER)
    forced[:, token] = 0.0
    return forced
