"""Documents and pairs on disk as the reference keeps them.

Documents: `source/*.txt`, a line each: id, a space, the text on one line. Pairs: `{split}.jsonl`
with `id`, `article`, `summary`; on request `{split}.source` and `{split}.target` beside it.
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
    """What a download folder holds now, and what went wrong on the way (kind -> how often)."""

    folder: str
    documents: int
    bytes: int
    files: int
    dropped: dict[str, int]


def write_documents(path: Path, documents: Iterable[tuple[str, str]]) -> int:
    """Write (id, text) as lines, at once; how many there were. Empty texts are left out.

    White space in an id becomes `_`: an id is one word.
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
    """Write a split as .jsonl, and as .source + .target if `parallel`; the files."""
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
    """`text` without what UTF-8 cannot hold (lone surrogates) and without NUL."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "")
