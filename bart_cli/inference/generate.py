"""`generate`: source ids in, hypotheses out, in the order of the sources.

Articles of similar length are decoded in one batch. Results do not depend on the batch. Articles
whose search is over are removed from it.
"""

# Legend: A articles, K beams, R = A * K rows, T tokens so far, V vocabulary.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bart_cli.config.generation import GenerationConfig
from bart_cli.data.batch import micro_batches, pad_rows
from bart_cli.errors import BartError, UsageError
from bart_cli.inference import beam
from bart_cli.inference.constraints import Constraints
from bart_cli.inference.decoding import Decoding
from bart_cli.inference.engine import Engine
from bart_cli.inference.sampling import Draws, NotFiniteError, warp
from bart_cli.model.bart import Bart
from bart_cli.progress import Reporter

# The batch shrinks when less than this share of its articles is left. A captured step must then be
# captured again, so shrinking pays later.
SHRINK, SHRINK_STATIC = 0.75, 0.5


@dataclass(frozen=True)
class Hypothesis:
    """Generated ids without the start token, up to and including </s>.

    score: finite; higher is better; beam.WORST if no hypothesis was possible.
    """

    tokens: list[int]
    score: float


class Interrupted(KeyboardInterrupt):
    """Ctrl-C while decoding.

    results: one list per source; empty if the source was not decoded.
    """

    def __init__(self, results: list[list[Hypothesis]]) -> None:
        super().__init__()
        self.results = results


@torch.inference_mode()
def generate(
    model: Engine | Bart,
    sources: Sequence[Sequence[int]],
    generation: GenerationConfig,
    *,
    batch_size: int = 32,
    max_tokens: int | None = None,
    reporter: Reporter | None = None,
) -> list[list[Hypothesis]]:
    """Decode every source: `return_sequences` hypotheses each, best first.

    Args:
        model: an engine, or a model to build one from for this call.
        sources: token ids including <s> and </s>.
        batch_size: maximum number of articles per batch.
        max_tokens: maximum number of source tokens per batch, including padding.

    Raises:
        UsageError: a source or `max_length` is longer than the model's positions.
        BartError: the scores are not finite.
        Interrupted: Ctrl-C; carries the results so far.
    """
    positions = model.config.max_position_embeddings
    longest = max((len(source) for source in sources), default=0)
    for what, length in (("a source", longest), ("max_length", generation.max_length)):
        if length > positions:
            raise UsageError(f"{what} of {length} tokens exceeds the model's {positions} positions")
    was_training = isinstance(model, Bart) and model.training
    engine = Engine(model) if isinstance(model, Bart) else model
    results: list[list[Hypothesis]] = [[] for _ in sources]
    lengths = np.array([len(source) for source in sources], dtype=np.int64)
    with (reporter or Reporter()).task("decode", total=len(sources), unit="articles") as task:
        for chosen in micro_batches(lengths, batch_size, max_tokens):
            rows = [int(i) for i in chosen]
            try:
                found = _decode(engine, [sources[i] for i in rows], generation)
            except NotFiniteError:
                raise not_finite(engine.name) from None
            except KeyboardInterrupt:
                raise Interrupted(results) from None
            for row, hypotheses in zip(rows, found, strict=True):
                results[row] = hypotheses
            task.advance(len(rows))
    if isinstance(model, Bart):
        model.train(was_training)
    return results


def not_finite(name: str) -> BartError:
    """Create the error for a model whose scores are NaN."""
    return BartError(
        f"{name}: scores are not finite (NaN)",
        hint="Use --precision fp32 or bf16. If it already is, the weights themselves hold NaN or "
        "infinity: take another checkpoint, or train in bf16 or fp32.",
    )


def _decode(
    engine: Engine, sources: list[Sequence[int]], generation: GenerationConfig
) -> list[list[Hypothesis]]:
    config = engine.config
    source = pad_rows(
        [list(s) for s in sources],
        config.pad_token_id,
        positions=config.max_position_embeddings,
    )
    lengths = torch.tensor([len(s) for s in sources])
    real = torch.arange(source.shape[1]) < lengths[:, None]
    mask = None if bool(real.all()) else real.to(engine.device)
    memory = engine.encode(source.to(engine.device), mask)
    draws = Draws(sources, generation.seed, engine.device) if generation.sample else None
    constraints = Constraints(generation, engine.config, sources, engine.device)
    search = _walk if generation.beams == 1 else _search
    return search(engine, memory, mask, generation, constraints, draws)


def _search(
    engine: Engine,
    memory: Tensor,
    mask: Tensor | None,
    generation: GenerationConfig,
    constraints: Constraints,
    draws: Draws | None,
) -> list[list[Hypothesis]]:
    """Run beam search over a batch."""
    config, beams = engine.config, generation.beams
    articles = memory.shape[0]
    decoding = Decoding(engine, memory, mask, beams, generation.max_length)
    state = beam.start(
        articles,
        generation,
        start_id=_start_id(engine, generation),
        pad_id=config.pad_token_id,
        device=memory.device,
    )
    ends = frozenset(constraints.end_ids.tolist())
    numbers = torch.arange(articles, device=memory.device)  # article index of each state row
    results: list[list[Hypothesis]] = [[] for _ in range(articles)]
    shrink = SHRINK_STATIC if engine.static else SHRINK
    while True:
        tokens = state.running[:, :, : state.length].flatten(0, 1)
        log_probs = decoding.step(tokens[:, -1]).float().log_softmax(-1)
        log_probs = constraints(log_probs, tokens)
        if draws is not None:
            log_probs = warp(log_probs, generation, at_least=1 + len(constraints.end_ids))
        if generation.renormalize_logits:
            log_probs = log_probs.log_softmax(-1)
        state, origins = beam.advance(
            state,
            log_probs.unflatten(0, (-1, beams)),
            generation,
            end_ids=constraints.end_ids,
            draws=draws,
        )
        going = state.open(generation.early_stopping)
        # One transfer to the host for both. NaN ranks first, so it always reaches the running
        # beams.
        left, bad = torch.stack((going.sum(), state.running_scores.isnan().sum())).tolist()
        if bad:
            raise NotFiniteError
        if left <= shrink * len(numbers):
            for row in (~going).nonzero()[:, 0].tolist():
                results[int(numbers[row])] = _hypotheses(state, row, generation, ends)
            if not left:
                return results
        # The result of a finished article is final, so it may stay until the batch shrinks.
        decoding.reorder(origins)
        if left <= shrink * len(numbers):
            stay = going.nonzero()[:, 0]
            state, numbers = state.keep(stay), numbers[stay]
            decoding.keep(stay)
            constraints.keep(stay)
            if draws is not None:
                draws.keep(stay.tolist())


def _hypotheses(
    state: beam.BeamState, row: int, generation: GenerationConfig, ends: frozenset[int]
) -> list[Hypothesis]:
    count = generation.return_sequences
    pairs = zip(state.finished[row, :count], state.finished_scores[row, :count], strict=True)
    return [
        Hypothesis(_cut(tokens[1 : state.length].tolist(), ends), max(float(score), beam.WORST))
        for tokens, score in pairs
    ]


def _walk(
    engine: Engine,
    memory: Tensor,
    mask: Tensor | None,
    generation: GenerationConfig,
    constraints: Constraints,
    draws: Draws | None,
) -> list[list[Hypothesis]]:
    """Decode greedily or by sampling, `return_sequences` independent rows per article."""
    config, copies = engine.config, generation.return_sequences
    decoding = Decoding(engine, memory, mask, copies, generation.max_length)
    articles = memory.shape[0]
    start_id = _start_id(engine, generation)
    ends = frozenset(constraints.end_ids.tolist())
    tokens = torch.full((articles * copies, 1), start_id, device=memory.device)
    scores = torch.zeros(articles * copies, device=memory.device)
    ended = torch.zeros(articles * copies, dtype=torch.bool, device=memory.device)
    numbers = torch.arange(articles, device=memory.device)
    results: list[list[Hypothesis]] = [[] for _ in range(articles)]
    shrink = SHRINK_STATIC if engine.static else SHRINK
    while True:
        logits = decoding.step(tokens[:, -1]).float()
        logits = constraints(logits, tokens)
        if draws is not None:
            logits = warp(logits, generation, at_least=1)
            chosen = draws.multinomial(logits.softmax(-1), 1)
        else:
            chosen = logits.argmax(-1, keepdim=True)
        step_scores = logits.log_softmax(-1).gather(1, chosen)[:, 0]
        scores = scores + torch.where(ended, 0.0, step_scores)
        chosen = torch.where(ended[:, None], config.pad_token_id, chosen)
        ended = ended | (chosen == constraints.end_ids).any(-1)
        tokens = torch.cat([tokens, chosen], 1)
        going = ~ended.view(-1, copies).all(1)
        left = int(going.sum()) if tokens.shape[1] < generation.max_length else 0
        if left > shrink * len(numbers):
            continue
        if bool(scores.isnan().any()):
            raise NotFiniteError
        done = (~going).nonzero()[:, 0] if left else torch.arange(len(numbers))
        for article in done.tolist():
            rows = slice(article * copies, (article + 1) * copies)
            results[int(numbers[article])] = [
                Hypothesis(_cut(row, ends), max(score, beam.WORST))
                for row, score in zip(tokens[rows, 1:].tolist(), scores[rows].tolist(), strict=True)
            ]
        if not left:
            return results
        stay = going.nonzero()[:, 0]
        numbers = numbers[stay]
        tokens, scores, ended = (
            part.unflatten(0, (-1, copies))[stay].flatten(0, 1) for part in (tokens, scores, ended)
        )
        decoding.keep(stay)
        constraints.keep(stay)
        if draws is not None:
            draws.keep(stay.tolist())


def _start_id(engine: Engine, generation: GenerationConfig) -> int:
    own = generation.start_token
    return engine.config.decoder_start_token_id if own is None else own


def _cut(tokens: list[int], ends: frozenset[int]) -> list[int]:
    """Cut after the first token that ends a hypothesis."""
    end = next((i for i, token in enumerate(tokens) if token in ends), len(tokens))
    return tokens[: end + 1]
