"""A worker process, which receives texts over a pipe, decodes them, and sends records back.

The server process does not import torch. It starts workers and sends them texts, also while they
decode, and the numbers of texts whose clients have left. A worker that dies is replaced.
"""

from __future__ import annotations

import math
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from bart_cli.config.commands import LongText
from bart_cli.config.generation import GenerationConfig
from bart_cli.data.sentences import spaced_sentences
from bart_cli.data.words import UNSPACED
from bart_cli.errors import BartError, first_line
from bart_cli.runtime.memory import is_out_of_memory
from bart_cli.runtime.workers import end_with_parent
from bart_cli.serve.running import RunningTexts

if TYPE_CHECKING:
    from bart_cli.summarize.summarizer import Summarizer, Summary

# A word of `overlap` is a number or a run of at least four letters, or a single character in
# scripts without spaces.
LETTER = rf"(?:(?![{UNSPACED}])[^\W_])"
WORD = re.compile(rf"[{UNSPACED}]|{LETTER}*\d{LETTER}*|{LETTER}{{4,}}")
SHARE = 0.2  # smallest share of the words of a summary sentence in a source sentence that matches
MOST = 3  # source sentences to return for a summary sentence
SENTENCES = 5_000  # sentences of a source to compare and return


@dataclass(frozen=True)
class Served:
    """Information about the loaded model, sent by a worker."""

    precision: str
    device: str
    positions: int  # see `Summarizer`
    source_length: int  # see `Summarizer`
    vocab_size: int
    generation: GenerationConfig  # decoding settings saved with the model
    batch_size: int  # limit of a batch; see `Summarizer.summarize`
    gpus: int  # number of GPUs, each of which needs a worker
    max_tokens: int | None = None  # the other limit of a batch


@dataclass(frozen=True)
class Settings:
    """Settings of a request. Texts with equal `generation` can share a batch."""

    generation: GenerationConfig
    long: LongText = "truncate"


@dataclass(frozen=True)
class Text:
    """A text to summarize; `overlap`: whether to compare it with its summary."""

    number: int
    text: str
    settings: Settings
    overlap: bool


@dataclass(frozen=True)
class Failure:
    """An error: an HTTP status and a message for the client.

    shared: other texts were being decoded too, so it may be the fault of another text.
    """

    status: int
    message: str
    shared: bool = False


Load = Callable[[int], "tuple[Summarizer, Served]"]  # takes the number of the worker
Record = dict[str, object]
Order = list[Text] | int  # texts of equal settings, or the number of a text to cancel
Results = dict[int, Record | Failure | None]  # by number of the text; None: canceled
Reply = Served | BartError | Results


def work(pipe: Connection, number: int, threads: str | None, parent: int, load: Load) -> None:
    """Load the model, then decode texts until the pipe is closed.

    Args:
        threads: OMP_NUM_THREADS; None: unchanged.
        parent: pid of the server.
    """
    # Ctrl-C and SIGTERM may reach the whole process group. The server finishes its requests and
    # then closes the pipe.
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    end_with_parent(parent)
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = threads
    try:
        model, served = load(number)
    except (BartError, OSError) as error:
        pipe.send(error if isinstance(error, BartError) else BartError(first_line(error)))
        return
    pipe.send(served)
    with suppress(EOFError):
        _decode(pipe, model, served)


def _decode(pipe: Connection, model: Summarizer, served: Served) -> None:
    """Receive texts and send their records until the pipe is closed (EOFError)."""
    running: RunningTexts | None = None
    overlaps: dict[int, str] = {}  # the texts that are compared with their summaries
    while True:
        results: Results = {}
        while pipe.poll(0 if running or results else None):
            order: Order = pipe.recv()
            if isinstance(order, int):
                if running and running.cancel(order):
                    results[order] = None
                continue
            if not running:
                running = _begin(model, served, order[0].settings.generation)
            for text in order:
                try:
                    running.add(text.number, text.text, text.settings.long)
                except Exception as error:
                    results[text.number] = _failure(error)
                if text.overlap:
                    overlaps[text.number] = text.text
        if running:
            try:
                summaries = running.step()
            except Exception as error:
                lost, running = running.numbers(), None  # frees memory
                failure = _failure(error, shared=len(lost) > 1)
                summaries = {}
                results |= dict.fromkeys(lost, failure)
            for number, summary in summaries.items():
                least = running.generation.min_length if running else 0
                results[number] = _record(model, summary, least, overlaps.get(number))
        for number in results:
            overlaps.pop(number, None)
        if results:
            pipe.send(results)


def _begin(model: Summarizer, served: Served, generation: GenerationConfig) -> RunningTexts:
    # A text with more beams than usual counts as several texts in a batch.
    usual = max(model.generation.beams, model.generation.return_sequences)
    width = max(generation.beams, generation.return_sequences)
    size = max(1, served.batch_size * usual // max(usual, width))
    return RunningTexts(model, generation, size, served.max_tokens)


def _record(
    model: Summarizer, summary: Summary, min_length: int, compared: str | None
) -> Record | Failure:
    """Describe a summary, and its overlap with the text if it is given."""
    from bart_cli.inference.sampling import NotFiniteError

    if not math.isfinite(summary.score):
        return _failure(NotFiniteError())
    record = {"summary": summary.text} | asdict(summary)
    del record["text"], record["missing"]
    (row,) = model.tokenizer.encode_batch([summary.text], special=False)
    record |= {"cut": summary.cut, "summary_tokens": len(row), "warnings": []}
    if 0 < summary.source_tokens < min_length:
        record["warnings"] = [
            f"the text has {summary.source_tokens} tokens, fewer than min_length={min_length}: "
            "the summary will contain invented text"
        ]
    return record | ({} if compared is None else {"overlap": overlap(compared, summary.text)})


def overlap(source: str, summary: str) -> dict[str, object]:
    """Find the source sentences that share the most words with each summary sentence.

    Returns:
        {"source": sentences, "summary": [{"text": sentence, "source": [[index, share], ...]}]}
    """

    def words_of(text: str) -> set[str]:
        return set(WORD.findall(text.casefold()))

    sentences = spaced_sentences(source)[:SENTENCES]
    words = [words_of(sentence) for sentence in sentences]
    rows = []
    for sentence in spaced_sentences(summary):
        own = words_of(sentence)
        shares = [(len(own & other) / max(1, len(own)), -i) for i, other in enumerate(words)]
        best = sorted((pair for pair in shares if pair[0] >= SHARE), reverse=True)[:MOST]
        rows.append({"text": sentence, "source": [[-i, round(share, 3)] for share, i in best]})
    return {"source": sentences, "summary": rows}


def _failure(error: Exception, *, shared: bool = False) -> Failure:
    """Log an error in full, and describe it to the client without local paths."""
    import torch

    from bart_cli.inference.sampling import NotFiniteError

    if isinstance(error, NotFiniteError):
        line = "with these settings, the model's scores are not finite (NaN)"
        return Failure(500, line, shared)
    if is_out_of_memory(error):
        torch.cuda.empty_cache()
        line = "out of memory: request fewer beams or send shorter texts"
        return Failure(503, line, shared)
    lines = [error.message] if isinstance(error, BartError) else traceback.format_exception(error)
    print("worker:", "".join(lines), file=sys.stderr, flush=True)
    if isinstance(error, getattr(torch, "AcceleratorError", ())):
        sys.exit(1)  # a process cannot use the GPU after such an error
    return Failure(500, "the text could not be decoded; see the server's log", shared)
