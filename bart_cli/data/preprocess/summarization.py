"""Check and tokenize pairs: write one table per split, which fine-tuning memory-maps.

In: pairs in any format that `data/pairs.py` reads. Out: OUT/{train,validation,test}.arrow (Arrow
IPC files, uncompressed) with `id`, `article`, `summary` and the token ids of both (not truncated,
including special tokens), and OUT/report.json.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bart_cli.config.data import SummarizationDataConfig
from bart_cli.data.pair_files import FilePart
from bart_cli.data.pair_ids import LANGUAGE, encode_batches, vocabulary_of
from bart_cli.data.pairs import SPLITS, PairSource, Split
from bart_cli.data.sentences import AUTO
from bart_cli.data.shards import VOCABULARY, ids_type
from bart_cli.data.table_digest import ID_COLUMNS
from bart_cli.errors import START_ANEW, UsageError
from bart_cli.files import atomic_file, write_text
from bart_cli.progress import Reporter
from bart_cli.runtime.locks import exclusive
from bart_cli.tokenizer import Tokenizer


@dataclass(frozen=True)
class SplitReport:
    """Statistics of a split. If it is held out, `read` and `dropped` count the train split, too."""

    read: int
    kept: int
    dropped: dict[str, int]  # pairs skipped by reason
    in_training: int  # pairs whose article is also in the train split
    source_tokens: tuple[int, int, int]  # median, 95th percentile and maximum length
    target_tokens: tuple[int, int, int]


@exclusive
def preprocess_summarization(
    data: SummarizationDataConfig,
    out: Path,
    tokenizer: Tokenizer,
    *,
    language: str = AUTO,
    reporter: Reporter,
) -> dict[str, SplitReport]:
    """Tokenize the splits of `data.path`, and record their language for training and evaluation.

    Raises:
        UsageError: there is no split or no usable pair, a file is damaged, or `out` contains other
            pairs.
    """
    source = PairSource(data)
    if not source.splits:
        source.read("train")  # raises with the missing split
    old = _check_folder(source, out)
    reports = {}
    for split in source.splits:
        table = out / f"{split}.arrow"
        reports[split] = _prepare(source, split, table, tokenizer, language, reporter)
    for table in old:
        table.unlink()
    tokenizer.save(out / "tokenizer")
    summary = {split: asdict(report) for split, report in reports.items()}
    write_text(out / "report.json", json.dumps(summary, indent=2) + "\n")
    return reports


def _prepare(
    source: PairSource,
    split: str,
    table: Path,
    tokenizer: Tokenizer,
    language: str,
    reporter: Reporter,
) -> SplitReport:
    """Write one split in batches of pairs."""
    found = Split(split, keep_empty=split != "train")
    pairs = source.stream(found)
    if split != "train":  # `report_overlap` compares them with the train split
        pairs = found.keep(pairs)
    texts, ids = pa.string(), pa.list_(ids_type(tokenizer.vocab_size))
    schema = pa.schema(
        {"id": texts, "article": texts, "summary": texts} | dict.fromkeys(ID_COLUMNS, ids),
        metadata={VOCABULARY: tokenizer.fingerprint().encode()}
        | ({} if language == AUTO else {LANGUAGE: language.encode()}),
    )
    lengths = []
    with (
        atomic_file(table) as temporary,
        pa.ipc.new_file(temporary, schema) as writer,
        reporter.task(f"tokenize {split}", unit="pairs") as task,
    ):
        for part, batch in encode_batches(pairs, tokenizer):
            columns = [[p.id for p in part], [p.source for p in part], [p.target for p in part]]
            writer.write_batch(pa.record_batch([*columns, *batch.columns], schema=schema))
            lengths.append([column.value_lengths().to_numpy() for column in batch.columns])
            task.advance(len(part))
    found.report(reporter)
    source_tokens, target_tokens = map(np.concatenate, zip(*lengths, strict=True))
    return SplitReport(
        read=found.read,
        kept=len(source_tokens),
        dropped=found.dropped,
        in_training=source.report_overlap(found, reporter),
        source_tokens=_spread(source_tokens),
        target_tokens=_spread(target_tokens),
    )


def _check_folder(source: PairSource, out: Path) -> list[Path]:
    """Return the Parquet tables in `out` written by an earlier version, which will be replaced."""
    inputs = [part.path for s in SPLITS for part in source.parts(s) if isinstance(part, FilePart)]
    old = []
    for file in sorted(out.iterdir()) if out.is_dir() else []:
        split = next((s for s, names in SPLITS.items() if file.stem in names), None)
        table = FilePart(file)
        if split is None or table.form is None:
            continue
        if any(file.samefile(path) for path in inputs):
            raise UsageError(f"{file} is both input and output", hint="Choose another --out.")
        if vocabulary_of(table) is None:
            raise UsageError(
                f"{out} contains {file.name} with other pairs for the {split} split",
                hint=START_ANEW,
            )
        if split not in source.splits:
            raise UsageError(
                f"{out} has a {split} split, but {source.path} has none",
                hint=START_ANEW,
            )
        if table.form == "Parquet":
            old.append(file)
    return old


def _spread(lengths: NDArray[np.int32]) -> tuple[int, int, int]:
    return int(np.median(lengths)), int(np.percentile(lengths, 95)), int(lengths.max())
