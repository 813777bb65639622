"""Generate the built-in sample: a corpus and a summarization data set, offline and reproducibly.

The text is English news from an invented world. A good summary must select facts from among others
of the same kind, and express them in words other than the article's.
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

URL = "bart_cli.data.download.sample"  # recorded in the manifest as the origin
FILE_BYTES = 5_000_000  # size of a corpus file


@dataclass(frozen=True)
class SampleReport:
    """The files written."""

    out: Path
    documents: int
    bytes: int
    pairs: dict[str, int]  # by split


@exclusive
def write_sample(
    out: Path,
    *,
    seed: int = 0,
    megabytes: float = 20.0,
    train: int = 5000,
    validation: int = 500,
    test: int = 500,
    reporter: Reporter = Reporter(),
) -> SampleReport:
    """Write OUT/pretrain/source/*.txt (`<id> <text>` lines) and OUT/summarization/*.jsonl.

    Every document has its own random generator, seeded with `seed`, part and number, so that its
    text does not depend on the number of documents. Files listed in the manifest are not rewritten.

    Raises:
        UsageError: `out` contains a different sample or download.
    """
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
    """Write documents, numbered from `first`, until they have `size` bytes; return their number."""
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
    # A string seed is hashed with SHA-512: the same on every machine and Python version.
    return Cast(Random(f"{seed}:{part}:{index}"))
