"""Results of `bart summarize` as text for people, or as JSON for programs.

In: `Result`s, one after another. Out: a text stream; a file under its final name when it is whole.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from bart_cli.config.summarize import OutputFormat
from bart_cli.files import atomic_file, complete_lines
from bart_cli.printable import printable
from bart_cli.summarize.records import Origin
from bart_cli.summarize.summarizer import Summary

# Beyond what `json` escapes: what a terminal would obey, what some readers take for the end of a
# line, and lone surrogates, which have no UTF-8 form. JSON has them inside of strings only.
ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True)
class Result:
    """What became of one input: a summary, or the reason why there is none."""

    origin: Origin
    summary: Summary | None
    error: str = ""


Write = Callable[[Result], None]


def to_record(result: Result, decoding: Mapping[str, object]) -> dict[str, object]:
    """file, and of JSON lines line and id; then the summary with its numbers, or the error.

    Args:
        decoding: the settings behind all summaries, with their sources.
    """
    origin, summary = result.origin, result.summary
    row: dict[str, object] = {"file": origin.file}
    row |= {} if origin.line is None else {"line": origin.line}
    row |= {} if origin.id is None else {"id": origin.id}
    if summary is None:
        return row | {"error": result.error}
    row["summary"] = summary.text
    if summary.others:
        row["others"] = summary.others
    return row | {
        "score": round(summary.score, 6),
        "source_tokens": summary.source_tokens,
        "used_tokens": summary.used_tokens,
        "pieces": summary.pieces,
        "decoding": decoding,
    }


def to_json(record: dict[str, object]) -> str:
    """One line of JSON, readable and safe to print."""
    text = json.dumps(record, ensure_ascii=False, allow_nan=False)
    return ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


@contextmanager
def write_results(
    stream: TextIO,
    form: OutputFormat,
    heading: Callable[[str], str] | None,
    decoding: Mapping[str, object],
) -> Iterator[Write]:
    """Give a function that writes one result; what frames them all is written around.

    Args:
        heading: the line above each summary, from the name of its input; None: no such line.
            (Of text only, where errors are not written: they are for the reporter.)
        decoding: see `to_record`.
    """
    count = 0

    def write(result: Result) -> None:
        nonlocal count
        if form == "text":
            if result.summary is None:
                return
            if heading is not None:
                stream.write("\n" * bool(count) + heading(printable(str(result.origin))) + "\n")
            for text in (result.summary.text, *result.summary.others):
                stream.write(printable(text) + "\n")
        elif form == "jsonl":
            stream.write(to_json(to_record(result, decoding)) + "\n")
        else:
            stream.write((",\n  " if count else "[\n  ") + to_json(to_record(result, decoding)))
        count += 1

    yield write
    if form == "json":
        stream.write("\n]\n" if count else "[]\n")


@contextmanager
def new_file(path: Path) -> Iterator[TextIO]:
    """A stream whose content gets the name `path` when the block has ended well."""
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        yield stream


@dataclass(frozen=True)
class Continued:
    """An interrupted JSON-lines file: the stream to append to, and counts of existing results."""

    stream: TextIO
    lines: int
    failed: int


@contextmanager
def continued_file(path: Path, key: str) -> Iterator[Continued]:
    """Write a JSON-lines file that a later call with the same key resumes if this one dies.

    Until it is whole it is called `.NAME.KEY.partial`. Such files of other keys are removed.

    Args:
        key: letters and digits that tell the results from those of other inputs or settings.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{key}.partial")
    for other in path.parent.iterdir():
        name = re.fullmatch(rf"\.{re.escape(path.name)}\.\w+\.partial", other.name)
        if name and other != partial:
            other.unlink()
    partial.touch()
    with partial.open("r+", encoding="utf-8", newline="\n") as stream:
        lines = failed = end = 0
        for record, after in complete_lines(partial):
            if not isinstance(record, dict):
                break
            lines, end = lines + 1, after
            failed += "error" in record
        stream.truncate(end)
        stream.seek(end)
        yield Continued(stream, lines, failed)
        stream.flush()
        os.fsync(stream.fileno())
        partial.replace(path)
