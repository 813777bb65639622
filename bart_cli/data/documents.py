"""Text corpora on disk, cut into blocks that can be read in parallel.

In: folders in the reference's form (one document a line, its first word an id that is not text) or
plain text (documents parted by blank lines). Out: blocks; of a block, (id, text) of its documents.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from bart_cli.errors import UsageError

BLOCK_BYTES = 4 * 2**20  # of text in one task: bounds the memory of a worker
Form = Literal["lines", "plain"]
# What parts two documents. A line of blanks is blank too, and lines of Windows end in \r\n.
BLANK_LINE = re.compile(r"\n[ \t\r]*\n")
SEPARATOR: dict[Form, re.Pattern[bytes]] = {
    "lines": re.compile(rb"\n"),
    "plain": re.compile(BLANK_LINE.pattern.encode()),
}


@dataclass(frozen=True)
class Block:
    """The bytes [begin, end) of a file; both lie at the border of two documents."""

    path: Path
    begin: int
    end: int
    form: Form


def find_text_files(path: Path) -> list[Path]:
    """The `.txt` files of a corpus: a file itself, or all below a folder (`source/`, `en/` …).

    Raises:
        UsageError: nothing there, or a folder without `.txt` files.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UsageError(f"no such file or folder: {path}")
    files = sorted(file for file in path.rglob("*.txt") if file.is_file())
    if not files:
        raise UsageError(f"no .txt file below {path}")
    return files


def plan_blocks(path: Path, form: Form, size: int = BLOCK_BYTES) -> list[Block]:
    """Cut a corpus into blocks of about `size` bytes, always between two documents."""
    blocks = []
    for file in find_text_files(path):
        total = file.stat().st_size
        begin = 0
        with file.open("rb") as stream:
            while begin < total:
                end = min(total, begin + size)
                if end < total:
                    end = _next_border(stream, end - 1, SEPARATOR[form], total)
                blocks.append(Block(file, begin, end, form))
                begin = end
    if not blocks:
        raise UsageError(f"{path} is empty: there is no text to read")
    return blocks


def read_block(block: Block) -> Iterator[tuple[str, str]]:
    """(id, text) of each document with text; white space in a text is folded to single spaces.

    Raises:
        UsageError: bytes that are not UTF-8, with file and position.
    """
    with block.path.open("rb") as stream:
        stream.seek(block.begin)
        content = stream.read(block.end - block.begin)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        where = block.begin + error.start
        raise UsageError(
            f"{block.path} is not UTF-8: byte 0x{content[error.start]:02x} at position {where:,}",
            hint="convert it first, for example with `iconv -f latin1 -t utf-8`",
        ) from None
    if block.begin == 0:
        text = text.removeprefix("\ufeff")  # the mark that editors of Windows put first
    if block.form == "plain":
        for number, document in enumerate(BLANK_LINE.split(text)):
            folded = " ".join(document.split())
            if folded:
                yield f"{block.path.name}:{block.begin}:{number}", folded
        return
    for line in text.split("\n"):
        name, *words = line.split() or [""]
        if words:
            yield name, " ".join(words)


def read_texts(path: Path, form: Form) -> Iterator[str]:
    """The texts of a whole corpus in order."""
    for block in plan_blocks(path, form):
        for _, text in read_block(block):
            yield text


def _next_border(stream: IO[bytes], position: int, separator: re.Pattern[bytes], total: int) -> int:
    """The end of the first separator at or after `position`, `total` when there is none."""
    stream.seek(position)
    window = b""
    while chunk := stream.read(65536):
        window += chunk
        if found := separator.search(window):
            return position + found.end()
        # A separator that is not whole yet begins at the last line feed.
        keep = max(window.rfind(b"\n"), 0)
        keep = keep if not window[keep:].strip() else len(window)
        position, window = position + keep, window[keep:]
    return total
