"""`generate`: source ids in, hypotheses out, in the order of the sources.

Articles are decoded together with others of like length; what comes out does not depend on which.
Articles whose search has ended leave the batch.
"""

# Legend: A articles, K beams, R = A * K rows, V vocabulary.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bart_cli.config.generation import GenerationConfig
from bart_cli.data.collate import micro_batches, pad_rows
from bart_cli.errors import UsageError
from bart_cli.inference import beam
from bart_cli.inference.cache import CachedDecoder
from bart_cli.inference.constraints import NEVER, constrain
from bart_cli.model.bart import Bart
from bart_cli.progress import Reporter

SHRINK = 0.75  # a batch with fewer of its articles left than this is made smaller


@dataclass(frozen=True)
class Hypothesis:
    """Generated ids without the start token, up to and with </s>; `score`: what beams rank by."""

    tokens: list[int]
    score: float


@torch.inference_mode()
def generate(
    model: Bart,
    sources: Sequence[Sequence[int]],
    generation: GenerationConfig,
    *,
    batch_size: int = 32,
    reporter: Reporter | None = None,
) -> list[list[Hypothesis]]:
    """Decode every source: `return_sequences` hypotheses each, best first.

    Args:
        sources: ids with <s> and </s>.
        batch_size: articles decoded together.

    Raises:
        UsageError: a source or `max_length` is longer than the model's positions.
    """
    positions = model.config.max_position_embeddings
    longest = max((len(source) for source in sources), default=0)
    for what, length in (("a source", longest), ("max_length", generation.max_length)):
        if length > positions:
            raise UsageError(f"{what} of {length} tokens is more than the model's {positions}")
    was_training = model.training
    model.eval()
    results: list[list[Hypothesis]] = [[] for _ in sources]
    lengths = np.array([len(source) for source in sources], dtype=np.int64)
    with (reporter or Reporter()).task("decode", total=len(sources), unit="articles") as task:
        for chosen in micro_batches(lengths, batch_size):
            rows = [int(i) for i in chosen]
            for row, found in zip(
                rows, _decode(model, [sources[i] for i in rows], generation), strict=True
            ):
                results[row] = found
            task.advance(len(rows))
    model.train(was_training)
    return results


def _decode(
    model: Bart, sources: list[Sequence[int]], generation: GenerationConfig
) -> list[list[Hypothesis]]:
    device = model.model.shared.weight.device
    source = pad_rows([list(s) for s in sources], model.config.pad_token_id).to(device)
    lengths = torch.tensor([len(s) for s in sources], device=device)
    mask = torch.arange(source.shape[1], device=device)[None] < lengths[:, None]
    memory = model.encode(source, mask)
    if generation.beams == 1:
        return _walk(model, memory, mask, generation)
    return _search(model, memory, mask, generation)


def _search(
    model: Bart, memory: Tensor, mask: Tensor, generation: GenerationConfig
) -> list[list[Hypothesis]]:
    """Beam search over a batch."""
    config, beams = model.config, generation.beams
    articles = memory.shape[0]
    decoder = CachedDecoder(model, memory, mask, beams, generation.max_length)
    state = beam.start(
        articles,
        generation,
        start_id=config.decoder_start_token_id,
        pad_id=config.pad_token_id,
        device=memory.device,
    )
    generator = _generator(generation, memory.device)
    numbers = torch.arange(articles, device=memory.device)  # which article a row of the state is
    results: list[list[Hypothesis]] = [[] for _ in range(articles)]
    while True:
        tokens = state.running[:, :, : state.length].flatten(0, 1)
        log_probs = decoder.step(tokens[:, -1]).float().log_softmax(-1)
        log_probs = constrain(log_probs, tokens, generation, config)
        if generation.sample:
            log_probs = warp(log_probs, generation, at_least=2)
        state, origins = beam.advance(
            state,
            log_probs.unflatten(0, (-1, beams)),
            generation,
            eos_id=config.eos_token_id,
            generator=generator,
        )
        going = state.open(generation.early_stopping)
        left = int(going.sum())
        if left <= SHRINK * len(numbers):
            for row in (~going).nonzero()[:, 0].tolist():
                results[int(numbers[row])] = _hypotheses(
                    state, row, generation, config.eos_token_id
                )
            if not left:
                return results
        # An article that has ended cannot change any more, so it may stay until the batch shrinks.
        first = torch.arange(len(numbers), device=memory.device)[:, None] * beams
        decoder.reorder((first + origins).flatten())
        if left <= SHRINK * len(numbers):
            stay = going.nonzero()[:, 0]
            state, numbers = state.keep(stay), numbers[stay]
            decoder.keep(stay)


def _hypotheses(
    state: beam.BeamState, row: int, generation: GenerationConfig, eos_id: int
) -> list[Hypothesis]:
    count = generation.return_sequences
    pairs = zip(state.finished[row, :count], state.finished_scores[row, :count], strict=True)
    return [
        Hypothesis(_cut(tokens[1 : state.length].tolist(), eos_id), float(score))
        for tokens, score in pairs
    ]


def _walk(
    model: Bart, memory: Tensor, mask: Tensor, generation: GenerationConfig
) -> list[list[Hypothesis]]:
    """Greedy decoding or sampling: `return_sequences` independent rows per article."""
    config, copies = model.config, generation.return_sequences
    decoder = CachedDecoder(model, memory, mask, copies, generation.max_length)
    articles = memory.shape[0]
    tokens = torch.full((articles * copies, 1), config.decoder_start_token_id, device=memory.device)
    scores = torch.zeros(articles * copies, device=memory.device)
    ended = torch.zeros(articles * copies, dtype=torch.bool, device=memory.device)
    generator = _generator(generation, memory.device)
    while tokens.shape[1] < generation.max_length and not bool(ended.all()):
        logits = decoder.step(tokens[:, -1]).float()
        logits = constrain(logits, tokens, generation, config)
        if generation.sample:
            logits = warp(logits, generation, at_least=1)
            chosen = torch.multinomial(logits.softmax(-1), 1, generator=generator)
        else:
            chosen = logits.argmax(-1, keepdim=True)
        step_scores = logits.log_softmax(-1).gather(1, chosen)[:, 0]
        scores += torch.where(ended, 0.0, step_scores)
        chosen = torch.where(ended[:, None], config.pad_token_id, chosen)
        ended |= chosen[:, 0] == config.eos_token_id
        tokens = torch.cat([tokens, chosen], 1)
    rows = [_cut(row, config.eos_token_id) for row in tokens[:, 1:].tolist()]
    found = [Hypothesis(row, score) for row, score in zip(rows, scores.tolist(), strict=True)]
    return [found[i : i + copies] for i in range(0, len(found), copies)]


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


def _generator(generation: GenerationConfig, device: torch.device) -> torch.Generator | None:
    if not generation.sample:
        return None
    return torch.Generator(device).manual_seed(generation.seed)


def _cut(tokens: list[int], eos_id: int) -> list[int]:
    """Up to and with the first </s>."""
    return tokens[: tokens.index(eos_id) + 1] if eos_id in tokens else tokens
