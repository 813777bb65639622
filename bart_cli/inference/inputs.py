"""Texts to summarize: files, folders, standard input."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bart_cli.errors import UsageError

SUFFIXES = (".txt", ".md")


@dataclass(frozen=True)
class Document:
    """A text and the name that its summary is shown under."""

    name: str
    text: str


def read_documents(paths: Sequence[str]) -> list[Document]:
    """One document per file; a folder stands for its .txt and .md files, `-` for standard input.

    Raises:
        UsageError: a path that is missing, empty or not UTF-8 text.
    """
    documents = []
    for path in paths:
        if path == "-":
            documents.append(_document("standard input", sys.stdin.buffer.read()))
            continue
        documents += [_document(str(file), _bytes(file)) for file in _files(Path(path))]
    return documents


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    if not files:
        raise UsageError(f"no {' or '.join(SUFFIXES)} file in {path}")
    return files


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"no such file: {file}") from None


def _document(name: str, content: bytes) -> Document:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"{name} is not UTF-8 text: byte 0x{content[error.start]:02x} in line {line}",
            hint="convert it first, for example with `iconv -f latin1 -t utf-8`",
        ) from None
    if not text.strip():
        raise UsageError(f"{name} is empty: there is no text to summarize")
    return Document(name, text)
