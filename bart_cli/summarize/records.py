"""Read texts to summarize from JSON lines: one `Text` or `Failure` for every line.

The stream may be infinite and contain anything. One line of at most MAX_LINE bytes is in memory.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from bart_cli.data.fields import SOURCE_FIELDS, flat_row, join_texts, plain
from bart_cli.data.text_files import Stream

Bytes = IO[bytes] | Stream

MAX_LINE = 16 * 2**20  # bytes; a longer line is an error
SHOWN_FIELDS = 6  # field names listed in an error message
SHOWN_LETTERS = 30  # characters shown of each

JSON_KINDS = {
    dict: "an object",
    list: "a list",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


@dataclass(frozen=True)
class Origin:
    """Origin of a text: a file or "standard input" and, for JSON lines, the line and its `id`."""

    file: str
    line: int | None = None
    id: str | int | None = None

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}, line {self.line}"


@dataclass(frozen=True)
class Text:
    """A text to summarize."""

    origin: Origin
    text: str


@dataclass(frozen=True)
class Failure:
    """An input without a usable text, and the reason."""

    origin: Origin
    error: str


def read_records(stream: Bytes, file: str, field: str | None) -> Iterator[Text | Failure]:
    """Yield an item for each line of the stream named `file`.

    `field`: the one with the text; None: the first of SOURCE_FIELDS that is a string.
    """
    for number, line in enumerate(_lines(stream), 1):
        if line is None:
            error = f"the line is longer than {MAX_LINE // 2**20} MiB"
            yield Failure(Origin(file, number), error)
        else:
            yield _item(line, Origin(file, number), field)


def _lines(stream: Bytes) -> Iterator[bytes | None]:
    """Yield lines with their line ends, and None for a line that is too long."""
    while line := stream.readline(MAX_LINE + 1):
        if len(line) <= MAX_LINE:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(MAX_LINE)
        yield None


def _item(line: bytes, origin: Origin, field: str | None) -> Text | Failure:
    try:
        text = line.decode("utf-8-sig" if origin.line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        byte = f"byte 0x{line[error.start]:02x} at position {error.start}"
        return Failure(origin, f"the line is not UTF-8: {byte}")
    if not text.strip():
        return Failure(origin, "the line is empty")
    try:
        row = json.loads(text.rstrip("\r\n"))
    except RecursionError:
        return Failure(origin, "not valid JSON: nested too deeply")
    except json.JSONDecodeError as error:
        problem = error.msg.removesuffix(" at")
        return Failure(origin, f"not valid JSON: {problem} at character {error.pos + 1}")
    except ValueError:  # Python limits the digits of integers, which take quadratic time to parse
        return Failure(origin, "not valid JSON: a number has too many digits")
    if not isinstance(row, dict):
        return Failure(origin, f"expected a JSON object, found {JSON_KINDS[type(row)]}")
    row = flat_row(row)
    if isinstance(row.get("id"), str | int) and not isinstance(row["id"], bool):
        origin = Origin(origin.file, origin.line, row["id"])
    names = SOURCE_FIELDS if field is None else (field,)
    present = [key for name in names for key in row if key == name or plain(key) == plain(name)]
    if not present:
        wanted = f"looked for {', '.join(names)}" if field is None else f"'{field}' is missing"
        return Failure(origin, f"no field with the text: {wanted}, found {_shown(list(row))}")
    name = next((name for name in present if isinstance(row[name], str)), present[0])
    value = join_texts(row[name], " ")
    if value is None:
        return Failure(origin, f"field '{name}' is {JSON_KINDS[type(row[name])]}, expected text")
    if not value.strip():
        return Failure(origin, f"field '{name}' is empty: there is no text to summarize")
    return Text(origin, value)


def _shown(names: list[str]) -> str:
    if not names:
        return "none"
    more = f" and {len(names) - SHOWN_FIELDS} more" if len(names) > SHOWN_FIELDS else ""
    return ", ".join(name[:SHOWN_LETTERS] for name in names[:SHOWN_FIELDS]) + more
