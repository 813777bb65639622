"""A worker process, which receives batches over a pipe, decodes them, and sends records back.

The server process does not import torch. It starts workers, sends each one batch at a time, and
sends SIGUSR1 when all clients of the batch have left. A worker that dies is replaced.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from bart_cli.config.commands import LongText
from bart_cli.config.generation import GenerationConfig
from bart_cli.errors import BartError, first_line
from bart_cli.runtime.memory import is_out_of_memory
from bart_cli.runtime.workers import end_with_parent
from bart_cli.serve.overlap import overlap

if TYPE_CHECKING:
    from bart_cli.summarize.summarizer import Summarizer


@dataclass(frozen=True)
class Loaded:
    """A summarizer, and how it was loaded.

    Attributes:
        batch_size, max_tokens: limits of a batch; see `Summarizer.summarize`.
        gpus: number of GPUs, each of which needs a worker.
    """

    summarizer: Summarizer
    precision: str
    batch_size: int
    max_tokens: int | None
    gpus: int


@dataclass(frozen=True)
class Served:
    """Information about the loaded model, sent by a worker.

    Attributes:
        positions, source_length: see `Summarizer`.
        generation: decoding settings saved with the model.
        gpus: number of GPUs, each of which needs a worker.
    """

    precision: str
    device: str
    positions: int
    source_length: int
    vocab_size: int
    generation: GenerationConfig
    batch_size: int
    gpus: int


@dataclass(frozen=True)
class Settings:
    """Settings of a request. Texts with equal settings can share a batch."""

    generation: GenerationConfig
    long: LongText = "truncate"


@dataclass(frozen=True)
class Batch:
    """Texts with equal settings; `overlaps`: whether to compare each text with its summary."""

    texts: tuple[str, ...]
    overlaps: tuple[bool, ...]
    settings: Settings


@dataclass(frozen=True)
class Failure:
    """An error of a batch: an HTTP status and a message for the client."""

    status: int
    message: str


Load = Callable[[int], Loaded]  # takes the number of the worker
Reply = Served | BartError | Failure | list[dict[str, object]] | None  # None: canceled


def work(pipe: Connection, number: int, threads: str | None, parent: int, load: Load) -> None:
    """Load the model, then decode batches until the pipe is closed.

    Args:
        number: number of this worker.
        threads: OMP_NUM_THREADS; None: unchanged.
        parent: pid of the server.
        load: loads the model.
    """
    # Ctrl-C and SIGTERM may reach the whole process group. The server finishes its requests and
    # then closes the pipe.
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    decoding = False

    def cancel(*_: object) -> None:
        if decoding:
            raise KeyboardInterrupt

    signal.signal(signal.SIGUSR1, cancel)
    end_with_parent(parent)
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = threads
    try:
        loaded = load(number)
    except (BartError, OSError) as error:
        known = error if isinstance(error, BartError) else BartError(first_line(error))
        pipe.send(known)
        return
    model = loaded.summarizer
    pipe.send(
        Served(
            precision=loaded.precision,
            device=str(model.model.device),
            positions=model.positions,
            source_length=model.source_length,
            vocab_size=model.model.config.vocab_size,
            generation=model.generation,
            batch_size=loaded.batch_size,
            gpus=loaded.gpus,
        )
    )
    while True:
        try:
            batch: Batch = pipe.recv()
        except EOFError:
            return
        reply: Reply
        try:
            decoding = True
            reply = _records(loaded, batch)
            decoding = False
        except KeyboardInterrupt:
            reply = None
        except Exception as error:
            decoding = False
            reply = _failure(error)
        decoding = False
        pipe.send(reply)


def _records(loaded: Loaded, batch: Batch) -> list[dict[str, object]]:
    from bart_cli.inference.generate import not_finite

    model, generation = loaded.summarizer, batch.settings.generation
    # A text with more beams than usual counts as several texts in a batch.
    usual = max(model.generation.beams, model.generation.return_sequences)
    width = max(generation.beams, generation.return_sequences)
    summaries = model.summarize(
        batch.texts,
        long=batch.settings.long,
        batch_size=max(1, loaded.batch_size * usual // max(usual, width)),
        max_tokens=loaded.max_tokens,
        **generation.model_dump(),
    )
    rows = model.tokenizer.encode_batch([summary.text for summary in summaries], special=False)
    if not all(math.isfinite(summary.score) for summary in summaries):
        raise not_finite(model.model.name)
    records = []
    for text, wanted, summary, row in zip(
        batch.texts, batch.overlaps, summaries, rows, strict=True
    ):
        record = {"summary": summary.text} | asdict(summary)
        del record["text"], record["missing"]
        record |= {"cut": summary.cut, "summary_tokens": len(row)}
        records.append(record | ({"overlap": overlap(text, summary.text)} if wanted else {}))
    return records


def _failure(error: Exception) -> Failure:
    """Log an error in full, and describe it to the client without local paths."""
    import torch

    fatal = getattr(torch, "AcceleratorError", ())
    if is_out_of_memory(error):
        torch.cuda.empty_cache()
        return Failure(503, "out of memory: request fewer beams or send shorter texts")
    lines = [error.message] if isinstance(error, BartError) else traceback.format_exception(error)
    print("worker:", "".join(lines), file=sys.stderr, flush=True)
    if isinstance(error, fatal):
        sys.exit(1)  # a process cannot use the GPU after such an error
    if isinstance(error, BartError) and "not finite" in error.message:
        return Failure(500, "with these settings, the model's scores are not finite (NaN)")
    return Failure(500, "the text could not be decoded; see the server's log")


def check_ids(generation: GenerationConfig, vocab_size: int, positions: int) -> str | None:
    """Return the reason why the model cannot decode with these settings, or None.

    On a GPU, an id outside the vocabulary would cause a device error, which ends the process.
    """
    if generation.max_length > positions:
        return f"max_length={generation.max_length} exceeds the model's {positions} positions"
    if generation.top_k > vocab_size:
        return f"top_k={generation.top_k} exceeds the vocabulary size of {vocab_size}"
    single = (generation.start_token, generation.forced_bos_token)
    several: dict[str, Sequence[int | None]] = {
        "sequence_bias": [i for ids, _ in generation.sequence_bias for i in ids],
        "bad_words": [i for ids in generation.bad_words for i in ids],
        "suppress_tokens": generation.suppress_tokens,
        "begin_suppress_tokens": generation.begin_suppress_tokens,
        "start_token": single[:1],
        "forced_bos_token": single[1:],
        "end_tokens": generation.end_tokens or (),
        "forced_eos_tokens": generation.forced_eos_tokens or (),
    }
    for name, ids in several.items():
        for i in ids:
            if i is not None and i >= vocab_size:
                return f"{name} contains {i}, but the vocabulary has {vocab_size} tokens"
    return None
