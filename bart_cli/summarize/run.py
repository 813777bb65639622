"""The engine of `bart summarize`: read inputs and write results in order, window by window.

One window is in memory at a time. Every input (and every line of JSON lines) gets a result: a
summary or an error.
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TextIO

from bart_cli.config.commands import OutputFormat, SummarizeConfig
from bart_cli.errors import BartError
from bart_cli.files import atomic_file
from bart_cli.model.formats import model_files
from bart_cli.progress import Reporter, Task
from bart_cli.runtime.locks import locked_path
from bart_cli.runtime.memory import is_out_of_memory
from bart_cli.summarize.inputs import Input, read_items
from bart_cli.summarize.outputs import Result, continued_file, write_results
from bart_cli.summarize.records import Failure, Text
from bart_cli.summarize.summarizer import SummariesInterrupted, Summarizer, Summary
from bart_cli.summarize.windows import windows

BOOK = 200_000  # characters in a window from which on its pieces get a progress bar
NOTICES = 20  # messages about single inputs; further ones are only counted


@dataclass
class Counts:
    """Counts of results so far."""

    done: int = 0
    failed: int = 0
    cut: int = 0
    short: int = 0


def choose_format(
    config: SummarizeConfig, out: Path | None, inputs: Sequence[Input]
) -> OutputFormat:
    """Choose the output format: as configured, or from the suffix of `out`, or from the inputs."""
    if config.format is not None:
        return config.format
    if out is not None:
        return "jsonl" if out.suffix == ".jsonl" else "json" if out.suffix == ".json" else "text"
    return "jsonl" if any(given.kind == "jsonl" for given in inputs) else "text"


@dataclass(frozen=True)
class Job:
    """Inputs and settings of one command; for `heading`, see `write_results`."""

    inputs: Sequence[Input]
    config: SummarizeConfig
    form: OutputFormat
    batch_size: int
    max_tokens: int | None = None
    precision: str = "fp32"
    heading: Callable[[str], str] | None = None


def summarize_to_stream(
    summarizer: Summarizer,
    job: Job,
    stream: TextIO,
    *,
    reporter: Reporter,
    task: Task,
    counts: Counts | None = None,
) -> Counts:
    """Write the results of all inputs to a stream, or of those after the first `counts.done`."""
    counts = counts or Counts()
    items = itertools.islice(read_items(job.inputs, job.config.field), counts.done, None)
    min_length = summarizer.generation.min_length
    end = "last" if summarizer.tokenizer.truncates_left else "first"
    notices = 0
    with write_results(stream, job.form, job.heading, summarizer.stated()) as write:
        for results in _results(summarizer, items, job, reporter):
            for result in results:
                write(result)
                counts.done += 1
                if result.summary is None:
                    counts.failed += 1
                else:
                    counts.cut += result.summary.cut
                    counts.short += 0 < result.summary.source_tokens < min_length
                # The record of a JSON line contains the same information.
                reported = job.form == "text" or result.origin.line is None
                if reported and notices < NOTICES:
                    notices += _notify(result, reporter, min_length, end)
            stream.flush()
            task.advance(len(results))
    return counts


def summarize_to_file(
    summarizer: Summarizer, job: Job, out: Path, *, reporter: Reporter, task: Task
) -> Counts:
    """Write the results to a file atomically; resume JSON lines of an interrupted equal command."""
    write = partial(summarize_to_stream, summarizer, job, reporter=reporter, task=task)
    if job.form != "jsonl" or not all(given.rereadable for given in job.inputs):
        with (
            locked_path(out, reporter),
            atomic_file(out) as temporary,
            temporary.open("w", encoding="utf-8") as stream,
        ):
            return write(stream)
    with (
        locked_path(out, reporter),
        continued_file(out, _key(summarizer, job)) as (stream, done, failed),
    ):
        if done:
            reporter.info(f"{done:,} results exist; resuming after them")
        counts = Counts(done, failed)
        task.advance(done)
        try:
            return write(stream, counts=counts)
        except KeyboardInterrupt:
            reporter.info(f"{counts.done:,} results are kept; rerun the command to resume")
            raise


def _results(
    summarizer: Summarizer, items: Iterator[Text | Failure], job: Job, reporter: Reporter
) -> Iterator[list[Result]]:
    def weight(item: Text | Failure) -> int:
        return len(item.text) if isinstance(item, Text) else len(item.error)

    for window in windows(items, job.batch_size, weight):
        texts = [item.text for item in window if isinstance(item, Text)]
        try:
            summaries = summarizer.summarize(
                texts,
                long=job.config.long,
                batch_size=job.batch_size,
                max_tokens=job.max_tokens,
                reporter=reporter if sum(map(len, texts)) > BOOK else None,
            )
        except SummariesInterrupted as stop:
            yield _kept(window, stop.summaries, job)
            raise KeyboardInterrupt from None
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise BartError(
                f"out of memory: {job.batch_size} texts at once, "
                f"{summarizer.generation.beams} beams",
                hint=f"Pass --batch-size {max(1, job.batch_size // 2)}.",
            ) from None
        yield _kept(window, summaries, job)


def _kept(window: Sequence[Text | Failure], summaries: Sequence[Summary], job: Job) -> list[Result]:
    """Return the results of a window: all, unless Ctrl-C interrupted it.

    Then JSON lines keep the results before the first unfinished text, where a rerun resumes. Other
    formats keep every summary, including those that lack some pieces.
    """
    kept = []
    found = iter(summaries)
    for item in window:
        if isinstance(item, Failure):
            kept.append(Result(item.origin, None, item.error))
            continue
        summary = next(found)
        if summary.missing and job.form == "jsonl":
            break
        if summary.pieces or not summary.missing:
            kept.append(Result(item.origin, summary))
    return kept


def _notify(result: Result, reporter: Reporter, min_length: int, end: str) -> bool:
    """Report problems of one input; return whether there were any.

    Args:
        end: which tokens truncation keeps, the first or the last.
    """
    origin, summary = result.origin, result.summary
    if summary is None:
        reporter.warn(result.error if origin.line is None else f"{origin}: {result.error}")
        return True
    tokens = f"{origin} has {summary.source_tokens:,} tokens"
    short = 0 < summary.source_tokens < min_length
    if short:
        reporter.warn(
            f"{tokens}, fewer than min_length={min_length}: the summary will contain invented text "
            "(pass a lower --min-length)"
        )
    if summary.cut:
        reporter.warn(
            f"{tokens}; the model reads only the {end} {summary.used_tokens:,} "
            "(pass --long chunk to summarize all of it)"
        )
    elif summary.missing:
        reporter.warn(
            f"{tokens}: interrupted, {summary.missing} of {summary.pieces + summary.missing} "
            "pieces are not in the summary"
        )
    elif summary.pieces > 1:
        reporter.info(f"{tokens}: summarized in {summary.pieces} pieces")
    return short or summary.cut or summary.pieces + summary.missing > 1


def _key(summarizer: Summarizer, job: Job) -> str:
    """Digest of inputs, model and settings: equal for commands that give equal results."""
    files = [given.path for given in job.inputs if given.path is not None]
    weights = model_files(summarizer.folder)
    state = [
        [(str(path), stat.st_size, stat.st_mtime_ns) for path in paths for stat in [path.stat()]]
        for paths in (files, weights)
    ]
    settings = [
        job.config.model_dump(mode="json", exclude={"format"}),
        summarizer.generation.model_dump(mode="json"),
        job.precision,
    ]
    return hashlib.sha256(json.dumps([state, settings]).encode()).hexdigest()[:12]
