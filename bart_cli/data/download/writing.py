"""Write documents and pairs in the reference format.

Documents: `source/*.txt` with one document per line: id, space, text. Pairs: `{split}.jsonl` with
`id`, `article` and `summary`, and optionally `{split}.source` and `{split}.target`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bart_cli.data.pairs import Pair
from bart_cli.files import atomic_file


@dataclass(frozen=True)
class DownloadReport:
    """Contents of a download folder. `dropped`: number of skipped items by reason."""

    folder: str
    documents: int
    bytes: int
    files: int
    dropped: dict[str, int]


def write_documents(path: Path, documents: Iterable[tuple[str, str]]) -> int:
    """Write (id, text) pairs as lines, atomically, and return their number.

    Empty texts are skipped. White space in an id becomes `_`, so that an id is one word.
    """
    count = 0
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for name, text in documents:
            folded = " ".join(clean(text).split())
            if folded:
                stream.write(f"{'_'.join(clean(name).split())} {folded}\n")
                count += 1
    return count


def write_pairs(folder: Path, split: str, pairs: Iterable[Pair], *, parallel: bool) -> list[Path]:
    """Write a split as .jsonl and, if `parallel`, also as .source + .target; return the files."""
    rows = list(pairs)
    jsonl = folder / f"{split}.jsonl"
    with atomic_file(jsonl) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for pair in rows:
            row = {
                "id": clean(pair.id),
                "article": clean(pair.source),
                "summary": clean(pair.target),
            }
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    files = [jsonl]
    if parallel:
        for suffix, side in ((".source", "source"), (".target", "target")):
            path = folder / f"{split}{suffix}"
            with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
                for pair in rows:
                    stream.write(" ".join(clean(getattr(pair, side)).split()) + "\n")
            files.append(path)
    return files


def clean(text: str) -> str:
    """Replace lone surrogates, which UTF-8 cannot encode, and remove NUL characters."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "")
