"""Divide text corpora on disk into blocks that can be read in parallel.

In: files in the reference format (one document per line, preceded by an id), plain text (documents
separated by blank lines, or one per line), or JSON lines with a `text` field; each optionally
packed as .gz, .bz2 or .xz. Out: blocks, and the (id, text) pairs of the documents in a block.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

from bart_cli.data.text_files import (
    MARK,
    Stream,
    named_errors,
    open_utf8,
    unpacked_name,
    wrong_bytes,
)
from bart_cli.errors import UsageError
from bart_cli.files import no_such

BLOCK_BYTES = 4 * 2**20  # text in one task; bounds the memory of a worker
Form = Literal["lines", "line", "plain", "auto"]  # auto: line or plain, whichever is detected
FORMS = {
    "lines": "one document per line, preceded by an id",
    "line": "one document per line",
    "plain": "documents separated by blank lines",
}
# A line of white space counts as blank; Windows lines end with \r\n.
BLANK_LINE = re.compile(r"\n[ \t\r]*\n")
LINE = re.compile(rb"\n")
WHITE = re.compile(r"\s+")
LONG = 2**20  # characters that are split into words at once
BLANK_LINES = re.compile(BLANK_LINE.pattern.encode())
SUFFIXES = (".txt", ".jsonl", ".ndjson")
# Tokenizer files that look like text, and the files that mark a folder as a tokenizer.
TOKENIZER_FILES = {"merges.txt", "vocab.txt"}
TOKENIZER_MARKS = ("vocab.json", "tokenizer.json", "tokenizer_config.json")
SENTENCE_END = re.compile(
    r"[.!?\u2026\u3002\uff01\uff1f\u0964\u061f][\"'\u201d\u2019\u00bb)\]\u300d]*$"
)
WRAPPED = 120  # characters; the lines of hard-wrapped text are at most this long
HEAD = 2**20  # bytes at the beginning of a file from which its form is detected


@dataclass(frozen=True)
class Block:
    """Bytes [begin, end) of a (decompressed) file, cut between documents.

    `continued`: the block begins inside a document that is too long for one block.
    """

    path: Path
    begin: int
    end: int
    form: Form
    continued: bool = False


def scan_corpus(path: Path) -> tuple[list[Path], dict[str, int]]:
    """Return the text files at or below `path`, and the number of skipped files by suffix.

    Symbolic links are followed. Hidden files are ignored.

    Raises:
        UsageError: `path` does not exist, or is a folder without text files.
    """
    if path.is_file():
        return [path], {}
    if not path.is_dir():
        raise no_such(path)
    files: list[Path] = []
    others: Counter[str] = Counter()
    seen = {path.resolve()}  # symbolic links may form a cycle
    for folder, folders, names in os.walk(path, followlinks=True):
        inside = [Path(folder, name) for name in folders if not name.startswith(".")]
        folders[:] = [p.name for p in inside if not p.is_symlink() or p.resolve() not in seen]
        seen |= {p.resolve() for p in inside if p.is_symlink()}
        marked = any(mark in names for mark in TOKENIZER_MARKS)
        for name in names:
            file = Path(folder, name)
            if name.startswith(".") or name == "manifest.json" or not file.is_file():
                continue
            bare = unpacked_name(file)
            # A packed .json has JSON lines (C4, Dolma); a plain one in a folder may be anything.
            is_lines = bare.suffix == ".json" and bare.name != name.lower()
            is_text = bare.suffix in SUFFIXES or is_lines
            if is_text and not (marked and name in TOKENIZER_FILES):
                files.append(file)
            else:
                others[name if marked else file.suffix or name] += 1
    if not files:
        found = ", ".join(f"{count:,} {kind}" for kind, count in others.most_common(5))
        raise UsageError(
            f"no text file in {path}: expected {', '.join(SUFFIXES)}, optionally with .gz, .bz2 "
            "or .xz" + (f"; found {found}" if found else "")
        )
    return sorted(files), dict(others)


def find_form(path: Path) -> Form:
    """Detect how the plain text of a corpus is divided into documents: "plain" or "line".

    A blank line between two lines in any of the first 100 files means "plain". Otherwise, each line
    is a document, unless the text is hard-wrapped: lines are short, and most do not end a sentence.
    """
    lines: list[str] = []
    for _, stream in _plain_files(path):
        text = stream.read(HEAD).decode("utf-8", "replace").strip()
        if BLANK_LINE.search(text):
            return "plain"
        rows = text.splitlines()
        lines += rows if len(rows) > 1 else []
    ends = sum(bool(SENTENCE_END.search(line.rstrip())) for line in lines)
    wrapped = max(map(len, lines), default=0) <= WRAPPED and 2 * ends < len(lines)
    return "plain" if wrapped or not lines else "line"


def require_ids(path: Path) -> None:
    """Reject files whose lines do not begin with an id: their first words would be lost.

    Raises:
        UsageError: most of the first 200 lines of a file begin with a word that contains neither a
            digit nor one of `_:/-`.
    """
    for file, stream in _plain_files(path):
        rows = (row.decode("utf-8", "replace").split(None, 1) for row in islice(stream, 200))
        firsts = [row[0] for row in rows if row]
        words = sum(not re.search(r"[\d_:/-]", first) for first in firsts)
        if len(firsts) >= 5 and 2 * words > len(firsts):
            raise UsageError(
                f"{file}: lines do not begin with an id, for example {firsts[0][:40]!r}",
                hint=f"Pass text without ids with --text {path}.",
            )


def _plain_files(path: Path) -> Iterator[tuple[Path, Stream]]:
    """Open those of the first 100 files that are not JSON lines."""
    for file in scan_corpus(path)[0][:100]:
        if not _is_json(file):
            with open_utf8(file) as stream:
                yield file, stream


def plan_blocks(path: Path, form: Form, size: int = BLOCK_BYTES) -> list[Block]:
    """Divide a corpus into blocks of about `size` bytes, cut between documents.

    Documents longer than 4 * max(`size`, BLOCK_BYTES) bytes are cut between words.
    """
    form = find_form(path) if form == "auto" else form
    blocks = []
    for file in scan_corpus(path)[0]:
        separator = BLANK_LINES if form == "plain" and not _is_json(file) else LINE
        with open_utf8(file) as stream:
            # The size of a packed file is unknown until it is read.
            is_packed = not isinstance(stream, io.BufferedReader)
            total = sys.maxsize if is_packed else stream.seek(0, os.SEEK_END)
            longest = sys.maxsize if _is_json(file) else max(4 * size, 4 * BLOCK_BYTES)
            begin, continued = 0, False
            while begin < total:
                near = min(total, begin + size) - 1
                end, cut = _next_boundary(stream, near, separator, begin + longest)
                if end == begin:
                    break
                blocks.append(Block(file, begin, end, form, continued))
                begin, continued = end, cut
    if not blocks:
        raise UsageError(f"{path} is empty: it has no text")
    return blocks


class _LastFile(threading.local):
    """The most recently read file, kept open.

    A worker that reads the blocks of a packed file in order unpacks the file only once.
    """

    def __init__(self) -> None:
        self._opened = ExitStack()
        self._key: object = None

    def read(self, block: Block) -> bytes:
        """Return the bytes of a block."""
        with named_errors(block.path):
            stat = block.path.stat()
            key = (block.path, stat.st_ino, stat.st_size, stat.st_mtime_ns)
            if key != self._key:
                self._key = None
                self._opened.close()
                self._stream = self._opened.enter_context(open_utf8(block.path))
                self._key = key
            self._stream.seek(block.begin)
            return self._stream.read(block.end - block.begin)


_LAST_FILE = _LastFile()


def group_blocks(blocks: Iterable[Block], size: int = BLOCK_BYTES) -> list[tuple[Block, ...]]:
    """Group consecutive blocks into tasks of at most `size` bytes: small files share a task."""
    groups: list[list[Block]] = []
    held = size
    for block in blocks:
        length = block.end - block.begin
        if held + length > size:
            groups.append([])
            held = 0
        groups[-1].append(block)
        held += length
    return [tuple(group) for group in groups]


def read_blocks(blocks: Iterable[Block]) -> Iterator[tuple[str, str]]:
    """Yield (id, text) for each document of several blocks; see `read_block`."""
    return chain.from_iterable(map(read_block, blocks))


def read_block(block: Block) -> Iterator[tuple[str, str]]:
    """Yield (id, text) for each nonempty document, with white space collapsed to single spaces.

    Raises:
        UsageError: the file is not valid UTF-8, or a line of a JSON lines file is not valid.
    """
    content = _LAST_FILE.read(block)
    try:
        text = content.decode("utf-8").replace(MARK, "")
    except UnicodeDecodeError as error:
        where = f"at position {block.begin + error.start:,}"
        raise wrong_bytes(str(block.path), content, error, where) from None
    del content
    place = f"{block.path.name}:{block.begin}"
    form = "json" if _is_json(block.path) else block.form
    parts = BLANK_LINE.split(text) if form == "plain" else text.split("\n")
    for number, document in enumerate(parts):
        name = f"{place}:{number}"
        if form == "json" and document.strip():
            where = f"{block.path}, line {number + 1} after byte {block.begin:,}"
            row = _json_row(document, where)
            name, document = str(row.get("id", name)), row["text"]
        elif form == "lines" and block.continued and not number:
            name = place
        elif form == "lines":
            name, *rest = document.split(None, 1) or [""]
            document = "".join(rest)
        if folded := fold(document):
            yield name, folded


def fold(text: str) -> str:
    """Collapse each run of white space to a single space and strip both ends."""
    parts, begin = [], 0
    while begin < len(text):  # splitting a long text at once would take ten times its memory
        border = WHITE.search(text, begin + LONG)
        end = border.start() if border else len(text)
        parts.append(" ".join(text[begin:end].split()))
        begin = end
    return " ".join(filter(None, parts))


def read_texts(path: Path, form: Form) -> Iterator[str]:
    """Yield the text of each document of a corpus, in order."""
    for _, text in read_blocks(plan_blocks(path, form)):
        yield text


def _is_json(path: Path) -> bool:
    return unpacked_name(path).name.endswith((".jsonl", ".ndjson", ".json"))


def _json_row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: not valid JSON: {error}") from None
    text = row.get("text", 0) if isinstance(row, dict) else 0
    if not isinstance(text, str | None):
        found = f"; found {', '.join(row)}" if isinstance(row, dict) else ""
        raise UsageError(
            f"{where}: expected a JSON object with a 'text' field{found}",
            hint="Rename the field with the text: jq -c '{text: .NAME}' FILE > NEW.jsonl"
            if found
            else "Write one object per line: jq -c '.[]' FILE > NEW.jsonl",
        )
    row["text"] = (text or "").encode("utf-8", "replace").decode("utf-8")  # lone surrogates
    return row


def _next_boundary(
    stream: Stream, position: int, separator: re.Pattern[bytes], limit: int
) -> tuple[int, bool]:
    """Find the end of the first separator at or after `position`, or else of the stream.

    Past `limit`, settle for the end of a word.

    Returns:
        The position, and True if it is inside a document.
    """
    position = stream.seek(position)
    window = b""
    while chunk := stream.read(65536):
        window += chunk
        if found := separator.search(window):
            return position + found.end(), False
        if position + len(window) > limit:
            space = max(window.rfind(b" "), window.rfind(b"\n"))
            if space < 0:  # no word boundary: cut between two characters
                space = len(window) - 1
                while space > 0 and window[space] & 0xC0 == 0x80:
                    space -= 1
                space -= 1
            return position + space + 1, True
        # An incomplete separator begins at the last line feed.
        keep = max(window.rfind(b"\n"), 0)
        keep = keep if not window[keep:].strip() else len(window)
        position, window = position + keep, window[keep:]
    return position + len(window), False
