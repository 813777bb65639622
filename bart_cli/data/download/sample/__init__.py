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
from bart_cli.files import atomic_file
from bart_cli.progress import Reporter

FILE_BYTES = 5_000_000  # of one file of the corpus


@dataclass(frozen=True)
class SampleReport:
    """What was written. `pairs`: by split."""

    out: Path
    documents: int
    bytes: int
    pairs: dict[str, int]


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
    depend on how many others are written.
    """
    reporter = reporter or Reporter()
    target = int(megabytes * 1e6)
    documents = written = number = 0
    with reporter.task("write the corpus", total=target, unit="B") as task:
        while written < target:
            path = out / "pretrain" / "source" / f"sample-{number:03d}.txt"
            with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
                size = 0
                while size < FILE_BYTES and written + size < target:
                    text = document(_cast(seed, "pretrain", documents))
                    size += file.write(f"sample-{documents:07d} {text}\n")
                    documents += 1
                written += size
            task.advance(size)
            number += 1
    counts = {"train": train, "validation": validation, "test": test}
    with reporter.task("write the pairs", total=sum(counts.values()), unit="pairs") as task:
        for split, count in counts.items():
            path = out / "summarization" / f"{split}.jsonl"
            with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
                for index in range(count):
                    file.write(_pair_line(seed, split, index))
            task.advance(count)
    return SampleReport(out, documents, written, counts)


def _pair_line(seed: int, split: str, index: int) -> str:
    article, summary = news_pair(_cast(seed, split, index))
    row = {"id": f"{split}-{index:05d}", "article": article, "summary": summary}
    return json.dumps(row, ensure_ascii=False) + "\n"


def _cast(seed: int, part: str, index: int) -> Cast:
    # A string seeds through SHA-512: the same on every machine and version of Python.
    return Cast(Random(f"{seed}:{part}:{index}"))
