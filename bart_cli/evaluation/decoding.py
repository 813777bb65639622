"""Decode a split in batches, with one process or several.

The plan, articles sorted by length and divided into batches, depends only on the articles and the
batch size. In each round, every process decodes one batch, and rank 0 gathers and saves the
results. So an evaluation can be resumed with any number of processes.
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from bart_cli.config.run import EvaluateConfig
from bart_cli.data.batch import micro_batches
from bart_cli.data.fields import source_text
from bart_cli.data.pairs import Pair
from bart_cli.errors import BartError, UsageError
from bart_cli.evaluation.ledger import Decoded, DecodedBatch, Ledger
from bart_cli.inference.generate import generate
from bart_cli.inference.load import InferenceModel, in_language, load_for_inference
from bart_cli.progress import Reporter
from bart_cli.runtime.memory import is_out_of_memory
from bart_cli.runtime.signals import StopRequest, stopped
from bart_cli.runtime.world import World
from bart_cli.tokenizer import Tokenizer

ENCODED_AT_ONCE = 1000  # articles; the tokenizer needs much more memory than the ids


def decode_split(
    config: EvaluateConfig,
    pairs: Sequence[Pair],
    ledger: Ledger | None,
    world: World,
    reporter: Reporter,
    minutes: float | None = None,
) -> Tokenizer:
    """Decode the batches that are not yet in the ledger, and return the tokenizer. Collective.

    Args:
        ledger: the results, on rank 0; None on other ranks.
        minutes: time limit; None: no limit.
    """
    done = world.broadcast(set(ledger.batches) if ledger else set())
    evaluation = config.evaluation
    assert config.model_path is not None
    if world.size > 1 and ":" in evaluation.device:
        raise UsageError(
            f"device={evaluation.device}: {world.size} processes cannot share one device",
            hint="Drop --device, so that each process uses its own GPU.",
        )
    loaded = load_for_inference(
        config.model_path,
        evaluation.precision,
        config.data.tokenizer,
        device=evaluation.device,
        source_language=config.data.source_language,
        target_language=config.data.target_language,
    )
    limit = min(config.data.max_source_length, loaded.model.config.max_position_embeddings)
    prefix = loaded.model.config.prefix if config.data.prefix is None else config.data.prefix
    texts = [source_text(pair.source, prefix) for pair in pairs]
    sources, cut = _encode(texts, loaded.tokenizer, limit, reporter)
    lengths = np.array([len(source) for source in sources], dtype=np.int64)
    plan = list(micro_batches(lengths, evaluation.batch_size, evaluation.max_tokens))
    short = int(((lengths > 0) & (lengths < config.generation.min_length)).sum())
    if short and not done:
        reporter.warn(
            f"{short:,} of {len(pairs):,} articles have fewer tokens than "
            f"min_length={config.generation.min_length} "
            f"({config.generation_sources.get('min_length', 'settings')}): their summaries will "
            "contain invented text"
        )
    if cut:
        reporter.info(f"{cut:,} of {len(pairs):,} articles are truncated to {limit} tokens")
    if ledger and done:
        reporter.info(f"{ledger.done:,} of {len(pairs):,} articles are already decoded")
    elif ledger:
        ledger.begin(len(pairs), cut)
    todo = [number for number in range(len(plan)) if number not in done]
    if loaded.model.device.type == "cuda":
        name = torch.cuda.get_device_name(loaded.model.device)
    else:
        threads = torch.get_num_threads()
        name = f"{loaded.model.device.type} ({threads} thread{'' if threads == 1 else 's'})"
    device = f"{world.size} x {name}"  # such as "1 x cpu (8 threads)"
    with (
        StopRequest(minutes) as stop,
        reporter.task("decode", total=len(pairs), unit="articles") as task,
    ):
        task.advance(ledger.done if ledger else 0)
        for begin in range(0, len(todo), world.size):
            share = todo[begin : begin + world.size]
            start = time.perf_counter()
            mine = None
            if world.rank < len(share) and stop.reason is None:
                number = share[world.rank]
                with stop.cutting():
                    mine = _decode_batch(number, plan[number], sources, loaded, config)
            batches = [batch for batch in world.gather_all(mine) if batch is not None]
            if ledger:
                if batches:
                    ledger.append(batches, time.perf_counter() - start, device)
                task.advance(sum(len(batch.articles) for batch in batches))
            if world.any(stop.reason is not None):
                _leave(stop, ledger, len(pairs))
    return loaded.tokenizer


def _encode(
    texts: Sequence[str], tokenizer: Tokenizer, limit: int, reporter: Reporter
) -> tuple[list[np.ndarray], int]:
    """Tokenize the articles, truncate them to `limit`, and count the truncated ones.

    An empty article has no ids; its summary is empty.
    """
    rows: list[np.ndarray] = []
    cut, room = 0, limit - len(tokenizer.prefix) - len(tokenizer.suffix)
    with reporter.task("tokenize", total=len(texts), unit="articles") as task:
        for begin in range(0, len(texts), ENCODED_AT_ONCE):
            part = texts[begin : begin + ENCODED_AT_ONCE]
            # One token more than the limit shows that an article is too long.
            found = tokenizer.encode_batch(part, special=False, max_length=room + 1)
            for text, ids in zip(part, found, strict=True):
                cut += len(ids) > room
                framed = [*tokenizer.prefix, *tokenizer.truncate(ids, room), *tokenizer.suffix]
                rows.append(np.array(framed if text else [], dtype=np.int32))
            task.advance(len(part))
    return rows, cut


def _decode_batch(
    number: int,
    rows: np.ndarray,
    sources: Sequence[np.ndarray],
    loaded: InferenceModel,
    config: EvaluateConfig,
) -> DecodedBatch:
    read = [row for row in rows if len(sources[row])]
    batch: list[Any] = [sources[row].tolist() for row in read]
    generation = in_language(loaded.tokenizer, config.generation)
    start = time.perf_counter()
    try:
        found = generate(loaded.model, batch, generation, batch_size=max(1, len(batch)))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise BartError(
            f"out of memory: {len(batch)} articles of up to {len(batch[0]):,} tokens, "
            f"{config.generation.beams} beams",
            hint=f"Pass --batch-size {max(1, config.evaluation.batch_size // 2)}.",
        ) from None
    seconds = time.perf_counter() - start
    count = config.generation.return_sequences
    articles = [
        Decoded(int(row), [""] * count, [0.0] * count) for row in rows if not len(sources[row])
    ]
    for row, hypotheses in zip(read, found, strict=True):
        texts = loaded.tokenizer.decode_batch([hypothesis.tokens for hypothesis in hypotheses])
        # Further digits vary with the number of threads.
        scores = [round(hypothesis.score, 3) for hypothesis in hypotheses]
        articles.append(Decoded(int(row), [text.strip() for text in texts], scores))
    return DecodedBatch(number, seconds, articles)


def _leave(stop: StopRequest, ledger: Ledger | None, total: int) -> None:
    """End all ranks after the same round; rank 0 raises an error with the progress."""
    done = ledger.done if ledger else 0
    # No reason: only another rank received the signal.
    error = stopped(stop.reason or "SIGINT", f": {done:,} of {total:,} articles are decoded")
    raise SystemExit(error.exit_code) if ledger is None else error
