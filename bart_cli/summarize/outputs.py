"""Write the results of `bart summarize` as text or JSON.

In: a stream of `Result`s. Out: a text stream, or a file written atomically.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from bart_cli.config.commands import OutputFormat
from bart_cli.files import complete_lines
from bart_cli.progress import printable
from bart_cli.summarize.records import Origin
from bart_cli.summarize.summarizer import Summary

# Characters that `json` does not escape: control characters, which a terminal would interpret,
# line separators, where some readers split lines, and lone surrogates, which UTF-8 cannot encode.
# In JSON they occur only inside strings.
ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True)
class Result:
    """Result of one input: a summary or an error."""

    origin: Origin
    summary: Summary | None
    error: str = ""


def to_record(result: Result, decoding: Mapping[str, object]) -> dict[str, object]:
    """Convert a result to a JSON object: its origin, and the summary or the error.

    `decoding`: settings that are not the default, with their sources.
    """
    origin, summary = result.origin, result.summary
    row: dict[str, object] = {"file": origin.file}
    row |= {} if origin.line is None else {"line": origin.line}
    row |= {} if origin.id is None else {"id": origin.id}
    if summary is None:
        return row | {"error": result.error}
    row |= {"summary": summary.text} | ({"others": summary.others} if summary.others else {})
    return row | {
        "score": round(summary.score, 6),
        "source_tokens": summary.source_tokens,
        "used_tokens": summary.used_tokens,
        "pieces": summary.pieces,
        "decoding": decoding,
    }


def to_json(record: dict[str, object]) -> str:
    """Format a record as one line of JSON that is safe to print."""
    text = json.dumps(record, ensure_ascii=False, allow_nan=False)
    return ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


@contextmanager
def write_results(
    stream: TextIO,
    form: OutputFormat,
    heading: Callable[[str], str] | None,
    decoding: Mapping[str, object],
) -> Iterator[Callable[[Result], None]]:
    """Return a function that writes one result; on exit or an error, complete the output.

    Text output contains no errors; these are reported on standard error.

    Args:
        heading: makes the line above each summary in text output from the name of its input. None:
            no such line.
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

    complete = False
    try:
        yield write
        complete = True
    finally:  # the results before an error or Ctrl-C are valid JSON too
        if form == "json" and (count or complete):
            stream.write("\n]\n" if count else "[]\n")


@contextmanager
def continued_file(path: Path, key: str) -> Iterator[tuple[TextIO, int, int]]:
    """Write a JSON-lines file that a later call with the same key can resume.

    Yield the stream, the number of results that the file already has, and how many are errors.

    The file is called `.NAME.KEY.partial` until it is complete, where KEY identifies the inputs and
    settings. Partial files with other keys are deleted.
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
        yield stream, lines, failed
        stream.flush()
        os.fsync(stream.fileno())
        partial.replace(path)
