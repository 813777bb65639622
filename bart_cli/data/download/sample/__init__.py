"""The embedded sample: a corpus and a summarization set, written offline, the same every time.

English news-like text of an invented world. A good summary has to select facts that stand among
others of the same kind, and to say them in other words than the article.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from random import Random

from bart_cli.data.download.sample.articles import document, news_pair
from bart_cli.data.download.sample.world import Cast
from bart_cli.data.manifest import Manifest
from bart_cli.files import atomic_file, remove_leftovers
from bart_cli.progress import Reporter
from bart_cli.runtime.locks import exclusive

URL = "bart_cli.data.download.sample"  # where it is from
FILE_BYTES = 5_000_000  # of one file of the corpus


@dataclass(frozen=True)
class SampleReport:
    """What was written. `pairs`: by split."""

    out: Path
    documents: int
    bytes: int
    pairs: dict[str, int]


@exclusive
def write_sample(
    out: Path,
    *,
    seed: int = 0,
    megabytes: float = 20.0,
    train: int = 5000,
    validation: int = 500,
    test: int = 500,
    reporter: Reporter | None = None,
) -> SampleReport:
    """Write OUT/pretrain/source/*.txt (`<id> <text>` lines) and OUT/summarization/*.jsonl.

    Every document has its own generator, keyed by seed, part and number: the text of one does not
    depend on how many others are written. Files that the manifest has are not written again.

    Raises:
        UsageError: `out` holds another sample, or another download.
    """
    reporter = reporter or Reporter()
    counts = {"train": train, "validation": validation, "test": test}
    manifest = Manifest(out, {"corpus": "sample", "seed": seed, "megabytes": megabytes, **counts})
    remove_leftovers(out)
    target = int(megabytes * 1e6)
    documents = written = number = 0
    with reporter.task("write the corpus", total=target, unit="B") as task:
        while written < target:
            name = f"pretrain/source/sample-{number:03d}.txt"
            if not manifest.has(name):
                count = _write_corpus(
                    out / name, seed, documents, min(FILE_BYTES, target - written)
                )
                manifest.add(name, URL, documents=count)
            documents += manifest.files[name]["documents"]
            written += manifest.files[name]["size"]
            task.advance(manifest.files[name]["size"])
            number += 1
    with reporter.task("write the pairs", total=sum(counts.values()), unit="pairs") as task:
        for split, count in counts.items():
            name = f"summarization/{split}.jsonl"
            if not manifest.has(name):
                with atomic_file(out / name) as temporary, temporary.open("wb") as file:
                    for index in range(count):
                        file.write(_pair_line(seed, split, index).encode())
                manifest.add(name, URL, pairs=count)
            task.advance(count)
    return SampleReport(out, documents, written, counts)


def _write_corpus(path: Path, seed: int, first: int, size: int) -> int:
    """Write documents from number `first` on until they have `size` bytes; how many there are."""
    number = first
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        while file.tell() < size:
            text = document(_cast(seed, "pretrain", number))
            file.write(f"sample-{number:07d} {text}\n".encode())
            number += 1
    return number - first


def _pair_line(seed: int, split: str, index: int) -> str:
    article, summary = news_pair(_cast(seed, split, index))
    row = {"id": f"{split}-{index:05d}", "article": article, "summary": summary}
    return json.dumps(row, ensure_ascii=False) + "\n"


def _cast(seed: int, part: str, index: int) -> Cast:
    # A string seeds through SHA-512: the same on every machine and version of Python.
    return Cast(Random(f"{seed}:{part}:{index}"))
