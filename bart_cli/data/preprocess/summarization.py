"""Pairs checked and tokenized: a table per split that fine-tuning reads.

In: pairs in any form that `data/pairs.py` reads. Out: OUT/{train,validation,test}.parquet with
`id`, `article`, `summary` and the token ids of both (uncut, special tokens included), and
OUT/report.json.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bart_cli.config.data import SummarizationDataConfig
from bart_cli.data.pair_files import FilePart
from bart_cli.data.pairs import SPLITS, VOCABULARY, Pair, PairSource, open_pairs
from bart_cli.errors import START_ANEW, UsageError
from bart_cli.files import atomic_file, write_text
from bart_cli.progress import Reporter
from bart_cli.tokenizer import Tokenizer


@dataclass(frozen=True)
class SplitReport:
    """Pairs read and kept, why others were dropped; lengths in tokens: median, 95%, longest.

    kept: of divided data the pairs of this split, read and dropped those of the whole.
    in_training: pairs whose article is also in the train split.
    """

    read: int
    kept: int
    dropped: dict[str, int]
    in_training: int
    source_tokens: tuple[int, int, int]
    target_tokens: tuple[int, int, int]


def preprocess_summarization(
    data: SummarizationDataConfig, out: Path, tokenizer: Tokenizer, *, reporter: Reporter
) -> dict[str, SplitReport]:
    """Write the splits of `data.path`.

    Raises:
        UsageError: no split there, a damaged file, no pair left, or an `out` with other pairs.
    """
    source = open_pairs(data)
    if not source.splits:
        source.read("train")  # says what is missing
    _check_folder(source, out)
    reports = {}
    for split in source.splits:
        found = source.read(split)
        in_training = source.tell_overlap(found, reporter)
        with reporter.task(f"tokenize {split}", total=len(found.pairs), unit="pairs") as task:
            table = _tokenize(found.pairs, tokenizer)
            task.advance(len(found.pairs))
        with atomic_file(out / f"{split}.parquet") as temporary:
            pq.write_table(table, temporary, compression="zstd")
        reports[split] = SplitReport(
            read=found.read,
            kept=len(found.pairs),
            dropped=found.dropped,
            in_training=in_training,
            source_tokens=_spread(table["source_ids"]),
            target_tokens=_spread(table["target_ids"]),
        )
    tokenizer.save(out / "tokenizer")
    summary = {split: asdict(report) for split, report in reports.items()}
    write_text(out / "report.json", json.dumps(summary, indent=2) + "\n")
    return reports


def _check_folder(source: PairSource, out: Path) -> None:
    """Nothing of `out` may be overwritten that is the input, or stay that is of other pairs."""
    for split in SPLITS:
        table = out / f"{split}.parquet"
        if not table.is_file():
            continue
        if split not in source.splits:
            raise UsageError(
                f"{out} holds a {split} split, {source.path} has none: it is of other pairs",
                hint=START_ANEW,
            )
        parts = [*source.parts(split), *source.parts("train")]
        if any(isinstance(part, FilePart) and table.samefile(part.path) for part in parts):
            raise UsageError(f"{table} would be read and overwritten", hint="choose another --out")


def _tokenize(pairs: list[Pair], tokenizer: Tokenizer) -> pa.Table:
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
