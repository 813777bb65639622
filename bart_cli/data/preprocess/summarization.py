"""Pairs checked, cleaned and tokenised: a table per split that fine-tuning reads.

In: pairs in any known form. Out: OUT/{train,validation,test}.parquet with `id`, `article`,
`summary` and the token ids of both (uncut, special tokens included), and OUT/report.json.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bart_cli.data.pairs import VOCABULARY, Pair, find_split, read_pairs
from bart_cli.data.source_text import source_text
from bart_cli.errors import START_ANEW, UsageError
from bart_cli.files import atomic_file, write_text
from bart_cli.progress import Reporter
from bart_cli.tokenizer import Tokenizer

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class SplitReport:
    """Pairs read and kept, why others were dropped; lengths in tokens: median, 95%, longest."""

    read: int
    kept: int
    dropped: dict[str, int]
    source_tokens: tuple[int, int, int]
    target_tokens: tuple[int, int, int]


def preprocess_summarization(
    path: Path, out: Path, tokenizer: Tokenizer, *, reporter: Reporter
) -> dict[str, SplitReport]:
    """Write the splits that `path` has.

    Raises:
        UsageError: no split there, a damaged file, no pair left, or an `out` with other pairs.
    """
    found = [split for split in SPLITS if find_split(path, split) is not None]
    if path.is_file():
        found = ["train"]
    if not found:
        raise UsageError(f"no pairs in {path}: expected train.jsonl, validation.jsonl, test.jsonl")
    _check_folder(path, out, found)
    reports = {}
    for split in found:
        pairs = read_pairs(path, split)
        kept, dropped = clean_pairs(pairs)
        if not kept:
            raise UsageError(f"{path}: no usable pair in the {split} split: {dropped}")
        with reporter.task(f"tokenise {split}", total=len(kept), unit="pairs") as task:
            table = _tokenise(kept, tokenizer)
            task.advance(len(kept))
        with atomic_file(out / f"{split}.parquet") as temporary:
            pq.write_table(table, temporary, compression="zstd")
        reports[split] = SplitReport(
            read=len(pairs),
            kept=len(kept),
            dropped=dropped,
            source_tokens=_spread(table["source_ids"]),
            target_tokens=_spread(table["target_ids"]),
        )
    tokenizer.save(out / "tokenizer")
    summary = {split: asdict(report) for split, report in reports.items()}
    write_text(out / "report.json", json.dumps(summary, indent=2) + "\n")
    return reports


def _check_folder(path: Path, out: Path, found: list[str]) -> None:
    """Nothing of `out` may be overwritten that is the input, or stay that is of other pairs."""
    for split in SPLITS:
        table = out / f"{split}.parquet"
        if not table.is_file():
            continue
        source = find_split(path, split) if split in found else None
        if source is None:
            raise UsageError(
                f"{out} holds a {split} split, {path} has none: it is of other pairs",
                hint=START_ANEW,
            )
        if table.samefile(source):
            raise UsageError(f"{table} would be read and overwritten", hint="choose another --out")


def clean_pairs(pairs: list[Pair]) -> tuple[list[Pair], dict[str, int]]:
    """Drop pairs that teach nothing; the reasons with their counts come along.

    White space around a text is removed, white space inside is kept (see `source_text`).
    """
    dropped = {"empty article": 0, "empty summary": 0, "summary is the article": 0, "duplicate": 0}
    seen: set[tuple[str, str]] = set()
    kept = []
    for pair in pairs:
        source, target = source_text(pair.source), source_text(pair.target)
        if not source:
            dropped["empty article"] += 1
        elif not target:
            dropped["empty summary"] += 1
        elif source.split() == target.split():
            dropped["summary is the article"] += 1
        elif (source, target) in seen:
            dropped["duplicate"] += 1
        else:
            seen.add((source, target))
            kept.append(Pair(pair.id, source, target))
    return kept, dropped


def _tokenise(pairs: list[Pair], tokenizer: Tokenizer) -> pa.Table:
    ids = pa.list_(pa.int32())
    return pa.table(
        {
            "id": [pair.id for pair in pairs],
            "article": [pair.source for pair in pairs],
            "summary": [pair.target for pair in pairs],
            "source_ids": pa.array(tokenizer.encode_batch([p.source for p in pairs]), ids),
            "target_ids": pa.array(tokenizer.encode_targets([p.target for p in pairs]), ids),
        },
        metadata={VOCABULARY: tokenizer.fingerprint()},
    )


def _spread(column: pa.ChunkedArray) -> tuple[int, int, int]:
    lengths = column.combine_chunks().value_lengths().to_numpy(zero_copy_only=False)
    return (
        int(np.median(lengths)),
        int(np.percentile(lengths, 95)),
        int(lengths.max()),
    )
