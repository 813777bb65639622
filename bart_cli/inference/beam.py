"""One step of beam search as a pure function of its state.

Finds the same hypotheses as Hugging Face's `generate`. Every step takes the best C continuations
of the K running beams. Candidates that end, and rank among the best K, compete with the K best
finished hypotheses by log-likelihood / length ** penalty. The best K others keep running.

Example with K = 2, so C = 4, and the tokens a, b and </s>. Two beams run:

    beam 0  "x"  -1.0    log-probabilities  a -0.2   b -2.5   </s> -3.0
    beam 1  "y"  -1.5                       a -2.2   b -3.0   </s> -0.1

    candidates, best first:  "x a" -1.2,  "y </s>" -1.6,  "x b" -3.5,  "y a" -3.7

"y </s>" ends and ranks second, within the best 2: it becomes a finished hypothesis. The best 2
that do not end are "x a" and "x b", so both new beams extend beam 0, and `advance` returns the
origins [0, 0].
"""

# Legend: A articles, K beams, R rows, V vocabulary, N wanted, L longest target, C = K * max(2, 1 +
# number of end tokens) candidates: even if every end token ranks first, K running beams remain.

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from bart_cli.config.generation import GenerationConfig
from bart_cli.inference.sampling import Draws

WORST = -1.0e9  # lower than the score of any real hypothesis
BLOCK = 128  # scores per maximum in `best_of_rows`


@dataclass(frozen=True)
class BeamState:
    """All beams of all articles in a batch."""

    length: int  # number of tokens in each running beam, including the start token
    running: Tensor  # [A, K, L] ids
    running_scores: Tensor  # [A, K] log-likelihoods
    finished: Tensor  # [A, K, L] ids
    finished_scores: Tensor  # [A, K] log-likelihoods / length ** penalty
    is_finished: Tensor  # [A, K] bool
    improvable: Tensor  # [A] bool, False when no running beam can beat the worst finished one
    exhausted: Tensor  # [A] bool, True when every candidate of the last step ended

    def open(self, early_stopping: bool | str) -> Tensor:
        """Articles whose search is not over, [A] bool."""
        full = self.is_finished.all(1) & (early_stopping is True)
        return self.improvable & ~full & ~self.exhausted

    def keep(self, articles: Tensor) -> Self:
        """Select the state of some articles by their indices [A']."""
        tensors = {name: value[articles] for name, value in vars(self).items() if name != "length"}
        return replace(self, **tensors)


def start(
    articles: int, generation: GenerationConfig, *, start_id: int, pad_id: int, device: torch.device
) -> BeamState:
    """Start every beam with the start token; only the first beam of an article has score 0."""
    beams = generation.beams
    running = torch.full((articles, beams, generation.max_length), pad_id, device=device)
    running[:, :, 0] = start_id
    scores = torch.full((articles, beams), WORST, device=device)
    running_scores = scores.clone()
    running_scores[:, 0] = 0.0
    flags = torch.zeros(articles, dtype=torch.bool, device=device)
    return BeamState(
        length=1,
        running=running,
        running_scores=running_scores,
        finished=running.clone(),
        finished_scores=scores,
        is_finished=torch.zeros_like(scores, dtype=torch.bool),
        improvable=~flags,
        exhausted=flags,
    )


def advance(
    state: BeamState,
    log_probs_AKV: Tensor,
    generation: GenerationConfig,
    *,
    end_ids: Tensor,
    draws: Draws | None = None,
) -> tuple[BeamState, Tensor]:
    """Extend every beam by one token.

    Args:
        log_probs_AKV: log-probabilities of the next token after the constraints, fp32.
        end_ids: tokens that end a hypothesis.
        draws: random numbers. If given, candidates are sampled instead of ranked.

    Returns:
        The new state, and the beam that each new running beam extends, [A, K].
    """
    beams = log_probs_AKV.shape[1]
    count = beams * max(2, 1 + len(end_ids))
    if draws is None:
        scores_AC, origins_AC, tokens_AC = _best(state, log_probs_AKV, count)
    else:
        scores_AC, origins_AC, tokens_AC = _drawn(state, log_probs_AKV, count, draws)
    candidates = _gather(state.running, origins_AC)
    candidates[:, :, state.length] = tokens_AC
    length = state.length + 1
    ends_AC = (tokens_AC[..., None] == end_ids).any(-1) | (length == generation.max_length)

    running_scores = scores_AC + ends_AC * WORST
    best = running_scores.topk(beams)[1]
    state_after = _finish(state, candidates, scores_AC, ends_AC, generation)
    running_scores = running_scores.gather(1, best)
    improvable = state.improvable & _can_improve(running_scores, state_after, length, generation)
    advanced = replace(
        state_after,
        length=length,
        running=_gather(candidates, best),
        running_scores=running_scores,
        improvable=improvable,
        exhausted=ends_AC.all(1),
    )
    return advanced, origins_AC.gather(1, best)


def _best(state: BeamState, log_probs_AKV: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rank the continuations of each article; scores, beams and tokens are [A, C]."""
    articles, beams, vocabulary = log_probs_AKV.shape
    each = min(count, vocabulary)
    found, tokens = best_of_rows(log_probs_AKV.flatten(0, 1), each)
    scores = found.view(articles, beams, each) + state.running_scores[:, :, None]
    scores_AC, position = scores.flatten(1).topk(count)
    return scores_AC, position // each, tokens.view(articles, -1).gather(1, position)


def best_of_rows(scores_RV: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the `count` highest scores of each row, best first, and their indices, [R, N] each.

    For a handful out of 50,000 scores, `topk` on the whole row costs as much as the softmax before
    it. The best n scores lie in the n blocks with the highest maxima, so one pass for the maxima
    suffices.
    """
    blocks = scores_RV.shape[1] // BLOCK
    if blocks <= count:
        return scores_RV.topk(count)
    head = blocks * BLOCK  # the remainder, shorter than a block, is always searched
    maxima = scores_RV[:, :head].unflatten(1, (blocks, BLOCK)).amax(-1)
    chosen = maxima.topk(count)[1]
    inside = torch.arange(BLOCK, device=scores_RV.device)
    index = (chosen[:, :, None] * BLOCK + inside).flatten(1)
    tail = torch.arange(head, scores_RV.shape[1], device=scores_RV.device)
    index = torch.cat([index, tail.expand(len(index), -1)], 1)
    best, position = scores_RV.gather(1, index).topk(count)
    return best, index.gather(1, position)


def _drawn(
    state: BeamState, log_probs_AKV: Tensor, count: int, draws: Draws
) -> tuple[Tensor, Tensor, Tensor]:
    """Sample continuations, best first; scores, beams and tokens are [A, C]."""
    vocabulary = log_probs_AKV.shape[2]
    scores = (log_probs_AKV + state.running_scores[:, :, None]).flatten(1)
    drawn = draws.multinomial(scores.softmax(-1), count)
    # Sorted by score because only the first K candidates may finish.
    scores_AC, order = scores.gather(1, drawn).sort(descending=True)
    drawn = drawn.gather(1, order)
    return scores_AC, drawn // vocabulary, drawn % vocabulary


def _finish(
    state: BeamState,
    candidates: Tensor,
    scores_AC: Tensor,
    ends_AC: Tensor,
    generation: GenerationConfig,
) -> BeamState:
    """Merge candidates that end, and rank among the best K, into the finished hypotheses."""
    beams = state.running_scores.shape[1]
    eligible = ends_AC.clone()
    eligible[:, beams:] = False
    scores = scores_AC / state.length**generation.length_penalty
    full = state.is_finished.all(1, keepdim=True) & (generation.early_stopping is True)
    scores = scores + full * WORST
    scores = scores + ~state.improvable[:, None] * WORST
    scores = scores + ~eligible * WORST
    merged_scores = torch.cat([state.finished_scores, scores], 1)
    merged = torch.cat([state.finished, candidates], 1)
    flags = torch.cat([state.is_finished, eligible], 1)
    best = merged_scores.topk(beams)[1]
    return replace(
        state,
        finished=_gather(merged, best),
        finished_scores=merged_scores.gather(1, best),
        is_finished=flags.gather(1, best),
    )


def _can_improve(
    running_scores: Tensor, state: BeamState, length: int, generation: GenerationConfig
) -> Tensor:
    """Test whether the best running beam can still beat the worst finished one, [A] bool."""
    longest = length - 1
    if generation.early_stopping == "never" and generation.length_penalty > 0:
        longest = generation.max_length - 1
    best_possible = running_scores[:, :1] / longest**generation.length_penalty
    worst = state.finished_scores.min(1, keepdim=True)[0]
    worst = torch.where(state.is_finished, worst, WORST)
    return (best_possible > worst).any(1)


def _gather(rows: Tensor, index: Tensor) -> Tensor:
    """Select rows [A, n, L] by index [A, m] -> [A, m, L]."""
    return rows.gather(1, index[:, :, None].expand(-1, -1, rows.shape[2]))
