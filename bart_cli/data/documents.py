"""Text corpora on disk, cut into blocks that can be read in parallel.

In: folders in the reference's form (one document a line, its first word an id that is not text),
plain text (documents separated by blank lines, or one a line), or JSON lines with a `text`; each
also as `.gz`. Out: blocks; of a block, (id, text) of its documents.
"""

from __future__ import annotations

import gzip
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

from bart_cli.data.text_files import MARK, Stream, named_errors, open_utf8, wrong_bytes
from bart_cli.errors import UsageError

BLOCK_BYTES = 4 * 2**20  # of text in one task: bounds the memory of a worker
# id and text on a line; documents separated by blank lines; a document a line; found by looking
Form = Literal["lines", "plain", "line", "auto"]
# What separates two documents. A line of blanks is blank too, and lines of Windows end in \r\n.
BLANK_LINE = re.compile(r"\n[ \t\r]*\n")
LINE = re.compile(rb"\n")
WHITE = re.compile(r"\s+")
LONG = 2**20  # characters whose words are in memory as a list
BLANK_LINES = re.compile(BLANK_LINE.pattern.encode())
SUFFIXES = (".txt", ".jsonl", ".txt.gz", ".jsonl.gz")
# Files of a tokenizer or of a download beside the text. merges.txt and vocab.txt look like text.
TOKENIZER_FILES = {"merges.txt", "vocab.txt"}
TOKENIZER_MARKS = ("vocab.json", "tokenizer.json", "tokenizer_config.json")
SENTENCE_END = re.compile(
    r"[.!?\u2026\u3002\uff01\uff1f\u0964\u061f][\"'\u201d\u2019\u00bb)\]\u300d]*$"
)
WRAPPED = 120  # characters: lines of wrapped text are no longer
HEAD = 2**20  # bytes of a file that tell its form


@dataclass(frozen=True)
class Block:
    """The bytes [begin, end) of a file (unpacked); both lie at the border of two documents.

    `continued`: it begins inside of a document that is too long for one block.
    """

    path: Path
    begin: int
    end: int
    form: Form
    continued: bool = False


def find_text_files(path: Path) -> list[Path]:
    """The text files of a corpus: a file itself, or all below a folder (`source/`, `en/` …).

    Raises:
        UsageError: nothing there, or a folder without text files.
    """
    return scan_corpus(path)[0]


def scan_corpus(path: Path) -> tuple[list[Path], dict[str, int]]:
    """Text files at or below `path`, and how many others are left out, by their suffix.

    Symbolic links are followed, hidden files are not looked at.

    Raises:
        UsageError: nothing there, or a folder without text files.
    """
    if path.is_file():
        return [path], {}
    if not path.is_dir():
        raise UsageError(f"no such file or folder: {path}")
    files: list[Path] = []
    others: Counter[str] = Counter()
    seen = {path.resolve()}  # links may go round in a circle
    for folder, folders, names in os.walk(path, followlinks=True):
        inside = [Path(folder, name) for name in folders if not name.startswith(".")]
        folders[:] = [p.name for p in inside if not p.is_symlink() or p.resolve() not in seen]
        seen |= {p.resolve() for p in inside if p.is_symlink()}
        marked = any(mark in names for mark in TOKENIZER_MARKS)
        for name in names:
            file = Path(folder, name)
            if name.startswith(".") or name == "manifest.json" or not file.is_file():
                continue
            if name.lower().endswith(SUFFIXES) and not (marked and name in TOKENIZER_FILES):
                files.append(file)
            else:
                others[name if marked else file.suffix or name] += 1
    if not files:
        found = ", ".join(f"{count:,} {kind}" for kind, count in others.most_common(5))
        raise UsageError(
            f"no text file in {path}: expected {', '.join(SUFFIXES)}"
            + (f"; found {found}" if found else "")
        )
    return sorted(files), dict(others)


def find_form(path: Path) -> Form:
    """How the plain text of a corpus is divided into documents: "plain" or "line".

    A blank line between two lines in one of the first 100 files separates documents. Without one, a
    line is a document, unless the lines are wrapped: short, and most do not end a sentence.
    """
    lines: list[str] = []
    for file in find_text_files(path)[:100]:
        if _is_json(file):
            continue
        with open_utf8(file) as stream:
            text = stream.read(HEAD).decode("utf-8", "replace").strip()
        if BLANK_LINE.search(text):
            return "plain"
        rows = text.splitlines()
        lines += rows if len(rows) > 1 else []
    ends = sum(bool(SENTENCE_END.search(line.rstrip())) for line in lines)
    wrapped = max(map(len, lines), default=0) <= WRAPPED and 2 * ends < len(lines)
    return "plain" if wrapped or not lines else "line"


def require_ids(path: Path) -> None:
    """Refuse files in which the first words of lines are text, which would be taken for ids.

    Raises:
        UsageError: most of the first lines of a file begin with a word of letters only.
    """
    for file in find_text_files(path)[:100]:
        if _is_json(file):
            continue
        with open_utf8(file) as stream:
            rows = (row.decode("utf-8", "replace").split(None, 1) for row in islice(stream, 200))
            firsts = [row[0] for row in rows if row]
        words = sum(not re.search(r"[\d_:/-]", first) for first in firsts)
        if len(firsts) >= 5 and 2 * words > len(firsts):
            raise UsageError(
                f"{file}: lines do not begin with an id, for example {firsts[0][:40]!r}",
                hint=f"Pass text without ids with --text {path}.",
            )


def plan_blocks(path: Path, form: Form, size: int = BLOCK_BYTES) -> list[Block]:
    """Cut a corpus into blocks of about `size` bytes between two documents.

    A document of more than 4 * `size` bytes is cut between words.
    """
    form = find_form(path) if form == "auto" else form
    blocks = []
    for file in find_text_files(path):
        separator = BLANK_LINES if form == "plain" and not _is_json(file) else LINE
        with open_utf8(file) as stream:
            is_packed = isinstance(stream, gzip.GzipFile)  # its end is found by reading it
            total = sys.maxsize if is_packed else stream.seek(0, os.SEEK_END)
            longest = sys.maxsize if _is_json(file) else max(4 * size, 4 * BLOCK_BYTES)
            begin, continued = 0, False
            while begin < total:
                near = min(total, begin + size) - 1
                end, cut = _next_border(stream, near, separator, begin + longest)
                if end == begin:
                    break
                blocks.append(Block(file, begin, end, form, continued))
                begin, continued = end, cut
    if not blocks:
        raise UsageError(f"{path} is empty: it has no text")
    return blocks


class _LastFile(threading.local):
    """The file read last, kept open: blocks in order unpack a .gz file once for each worker."""

    def __init__(self) -> None:
        self._opened = ExitStack()
        self._key: object = None

    def read(self, block: Block) -> bytes:
        """The bytes of a block.

        Raises:
            UsageError: see `open_utf8`.
        """
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
    """Neighboring blocks as tasks of at most `size` bytes, so that small files share a task."""
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
    """(id, text) of the documents of several blocks."""
    return chain.from_iterable(map(read_block, blocks))


def read_block(block: Block) -> Iterator[tuple[str, str]]:
    """(id, text) of each document with text; white space in a text is folded to single spaces.

    Raises:
        UsageError: bytes that are not UTF-8, with file and position, or a line that is not JSON.
    """
    content = _LAST_FILE.read(block)
    try:
        text = content.decode("utf-8").replace(MARK, "")
    except UnicodeDecodeError as error:
        where = f"at position {block.begin + error.start:,}"
        raise wrong_bytes(str(block.path), content, error, where) from None
    del content
    place = f"{block.path.name}:{block.begin}"
    if _is_json(block.path):
        for number, line in enumerate(text.split("\n")):
            if line.strip():
                row = _json_row(line, f"{block.path}, line {number + 1} after byte {block.begin:,}")
                if folded := fold(row["text"]):
                    yield str(row.get("id", f"{place}:{number}")), folded
    elif block.form == "lines":
        for number, line in enumerate(text.split("\n")):
            if block.continued and not number:
                line = f"{place} {line}"
            name, *rest = line.split(None, 1) or [""]
            if folded := fold("".join(rest)):
                yield name, folded
    else:
        parts = BLANK_LINE.split(text) if block.form == "plain" else text.split("\n")
        for number, document in enumerate(parts):
            if folded := fold(document):
                yield f"{place}:{number}", folded


def fold(text: str) -> str:
    """The text with single spaces for white space, and none around it."""
    parts, begin = [], 0
    while begin < len(text):  # all words of a long text in one list take ten times its memory
        border = WHITE.search(text, begin + LONG)
        end = border.start() if border else len(text)
        parts.append(" ".join(text[begin:end].split()))
        begin = end
    return " ".join(filter(None, parts))


def read_texts(path: Path, form: Form) -> Iterator[str]:
    """The texts of a whole corpus in order."""
    for _, text in read_blocks(plan_blocks(path, form)):
        yield text


def _is_json(path: Path) -> bool:
    return path.name.lower().endswith((".jsonl", ".jsonl.gz"))


def _json_row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: not valid JSON: {error}") from None
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        raise UsageError(f"{where}: expected a JSON object with a 'text' field")
    row["text"] = row["text"].encode("utf-8", "replace").decode("utf-8")  # lone surrogates
    return row


def _next_border(
    stream: Stream, position: int, separator: re.Pattern[bytes], limit: int
) -> tuple[int, bool]:
    """The end of the first separator at or after `position`, of the stream when there is none.

    Behind `limit` the end of a word will do; True says that a document was cut there.
    """
    position = stream.seek(position)
    window = b""
    while chunk := stream.read(65536):
        window += chunk
        if found := separator.search(window):
            return position + found.end(), False
        if position + len(window) > limit:
            space = max(window.rfind(b" "), window.rfind(b"\n"))
            if space < 0:  # no word ends: between two characters
                space = len(window) - 1
                while space > 0 and window[space] & 0xC0 == 0x80:
                    space -= 1
                space -= 1
            return position + space + 1, True
        # A separator that is not whole yet begins at the last line feed.
        keep = max(window.rfind(b"\n"), 0)
        keep = keep if not window[keep:].strip() else len(window)
        position, window = position + keep, window[keep:]
    return position + len(window), False
