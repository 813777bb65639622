"""Compact token ids of pairs: two bytes each, or four if the vocabulary exceeds 65,536 entries.

In: pairs, or a table written by `bart preprocess summarization`, which is memory-mapped so that all
processes on a machine share one copy. Out: rows of ids, truncated when they are read.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import IO, TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bart_cli.config.data import SummarizationDataConfig
from bart_cli.data.denoising import Ids
from bart_cli.data.fields import source_text
from bart_cli.data.pair_files import ROWS, FilePart
from bart_cli.data.pairs import Pair, PairSource, Split
from bart_cli.data.shards import VOCABULARY, ids_type, ragged
from bart_cli.data.table_digest import ID_COLUMNS
from bart_cli.progress import Reporter
from bart_cli.tokenizer import Tokenizer

if TYPE_CHECKING:
    from bart_cli.runtime.world import World

LANGUAGE = b"bart_language"  # table metadata: language for sentence splitting; absent for auto


class PackedRows:
    """Rows of token ids, truncated to `limit` tokens with `prefix` and `suffix` kept.

    The tokenizer replaces ids for which the model has no embedding.
    """

    def __init__(
        self,
        chunks: Iterable[pa.ListArray],
        limit: int,
        frame: tuple[list[int], list[int]],
        tokenizer: Tokenizer,
    ) -> None:
        self._chunks = [ragged(chunk) for chunk in chunks]
        self._limit, self._tokenizer = limit, tokenizer
        self._prefix, self._suffix = frame
        sizes = [len(chunk.lengths) for chunk in self._chunks]
        self._ends = np.cumsum(sizes, dtype=np.int64)
        uncut = np.concatenate([np.zeros(0, np.int64), *(c.lengths for c in self._chunks)])
        self.cut = int((uncut > limit).sum())  # number of truncated rows
        self.lengths: Ids = np.minimum(uncut, limit)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Ids:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = int(np.searchsorted(self._ends, index, side="right"))
        chunk = self._chunks[number]
        row = chunk.row(index - int(self._ends[number]) + len(chunk.lengths)).astype(np.int64)
        if len(row) > self._limit and self._tokenizer.truncates_left:
            row = row[-self._limit :]
            row[: len(self._prefix)] = self._prefix
        elif len(row) > self._limit:
            row = row[: self._limit]
            row[self._limit - len(self._suffix) :] = self._suffix
        return self._tokenizer.known(row)


@dataclass(frozen=True)
class EncodedPairs:
    """Token ids of sources and targets, truncated, including special tokens."""

    sources: PackedRows
    targets: PackedRows


def load_encoded(
    source: PairSource,
    split: str,
    limit: int | None,
    data: SummarizationDataConfig,
    tokenizer: Tokenizer,
    prefix: str = "",
    reporter: Reporter = Reporter(),
    world: World | None = None,
) -> EncodedPairs:
    """Load the ids of a split, or tokenize its pairs if it is not prepared; see `load_prepared`."""
    prepared = load_prepared(source, split, limit, data, tokenizer, prefix)
    if prepared is not None:
        return prepared
    found = Split(split)
    pairs = encode_pairs(source.stream(found, limit), data, tokenizer, prefix, reporter, world)
    found.report(reporter)
    return pairs


def load_prepared(
    source: PairSource,
    split: str,
    limit: int | None,
    data: SummarizationDataConfig,
    tokenizer: Tokenizer,
    prefix: str = "",
) -> EncodedPairs | None:
    """Load the ids that `bart preprocess summarization` wrote with this tokenizer and no prefix.

    Pairs with an empty article are skipped, as they are when `load_encoded` tokenizes pairs.

    Returns:
        None if there are no such ids.
    """
    table = None if prefix.strip() else source.prepared(split)
    if table is None or vocabulary_of(table) != tokenizer.fingerprint():
        return None
    batches = _mapped(str(table.path)) if table.form == "Arrow" else _of_parquet(table, tokenizer)
    if split != "train":  # prepared for scoring, which counts pairs with an empty article
        batches = map(_with_article, batches)
    return _pairs(_first_rows(batches, limit), data, tokenizer)


def count_training_pairs(source: PairSource, limit: int | None = None) -> int:
    """Count the pairs that `load_encoded` returns for the train split, without tokenizing them."""
    table = source.prepared("train")
    if table is None or vocabulary_of(table) is None:
        return sum(1 for _ in source.stream(Split("train"), limit))
    if table.form == "Arrow":
        rows = sum(batch.num_rows for batch in _mapped(str(table.path)))
    else:
        rows = pq.read_metadata(table.path).num_rows
    return rows if limit is None else min(rows, limit)


def encode_pairs(
    pairs: Iterable[Pair],
    data: SummarizationDataConfig,
    tokenizer: Tokenizer,
    prefix: str = "",
    reporter: Reporter = Reporter(),
    world: World | None = None,
) -> EncodedPairs:
    """Tokenize pairs and truncate them to the limits in `data`.

    With a `world`, one rank of each machine tokenizes for all its ranks.
    """

    def tokenized() -> Iterator[pa.RecordBatch]:
        with reporter.task("tokenize the pairs", unit="pairs") as task:
            for part, batch in encode_batches(pairs, tokenizer, prefix):
                task.advance(len(part))
                yield batch

    if world is None or world.size == 1:
        return _pairs(tokenized(), data, tokenizer)
    from bart_cli.runtime.machine import once_per_machine

    def write(file: IO[bytes]) -> None:
        with pa.ipc.new_file(file, _ids_schema(tokenizer)) as writer:
            for batch in tokenized():
                writer.write_batch(batch)

    return _pairs(once_per_machine(world, write, _mapped), data, tokenizer)


def encode_batches(
    pairs: Iterable[Pair], tokenizer: Tokenizer, prefix: str = ""
) -> Iterator[tuple[list[Pair], pa.RecordBatch]]:
    """Yield batches of pairs with their ids, including special tokens, without truncation."""
    schema = _ids_schema(tokenizer)
    rest = iter(pairs)
    while part := list(islice(rest, ROWS)):
        sides = (
            tokenizer.encode_batch([source_text(pair.source, prefix) for pair in part]),
            tokenizer.encode_targets([source_text(pair.target) for pair in part]),
        )
        columns = [pa.array(side, kind) for side, kind in zip(sides, schema.types, strict=True)]
        yield part, pa.record_batch(columns, schema=schema)


def _ids_schema(tokenizer: Tokenizer) -> pa.Schema:
    return pa.schema(dict.fromkeys(ID_COLUMNS, pa.list_(ids_type(tokenizer.vocab_size))))


def _pairs(
    batches: Iterable[pa.RecordBatch], data: SummarizationDataConfig, tokenizer: Tokenizer
) -> EncodedPairs:
    held = list(batches)
    sources, targets = ([batch.column(name) for batch in held] for name in ID_COLUMNS)
    frame = tokenizer.prefix, tokenizer.suffix
    frame = tokenizer.prefix, tokenizer.suffix
    return EncodedPairs(
        PackedRows(sources, data.max_source_length, frame, tokenizer),
        PackedRows(targets, data.max_target_length, tokenizer.target_frame, tokenizer),
    )


def language_of(data: SummarizationDataConfig) -> str | None:
    """Return the language recorded in prepared pairs; None for auto and for other pairs."""
    if data.path is None or not data.path.exists():
        return None
    source = PairSource(data)
    tables = filter(None, map(source.prepared, source.splits))
    found = (_metadata(table).get(LANGUAGE, b"").decode() for table in tables)
    return next(filter(None, found), None)


def vocabulary_of(table: FilePart) -> str | None:
    """Return the fingerprint of the tokenizer that made a table's ids; None without ids.

    It is read from the table: a tokenizer folder next to it may belong to another run.
    """
    vocabulary = _metadata(table).get(VOCABULARY)
    return None if vocabulary is None else vocabulary.decode()


def _metadata(table: FilePart) -> dict[bytes, bytes]:
    """Metadata of a table written by `bart preprocess summarization`; empty for other tables."""
    try:
        if table.form == "Arrow":
            with pa.memory_map(str(table.path)) as content:
                schema = pa.ipc.open_file(content).schema
        else:
            schema = pq.read_schema(table.path)
    except (pa.ArrowInvalid, OSError):
        return {}  # reading the text reports the problem
    if not set(ID_COLUMNS) <= set(schema.names):
        return {}
    return {VOCABULARY: b""} | (schema.metadata or {})


def _mapped(path: str) -> Iterator[pa.RecordBatch]:
    file = pa.ipc.open_file(pa.memory_map(path))
    return map(file.get_batch, range(file.num_record_batches))


def _of_parquet(table: FilePart, tokenizer: Tokenizer) -> Iterator[pa.RecordBatch]:
    """Read the ids of a table written by an earlier version, with four bytes per id."""
    ids = pa.list_(ids_type(tokenizer.vocab_size))
    with pq.ParquetFile(table.path) as file:
        for batch in file.iter_batches(ROWS, columns=["article", *ID_COLUMNS]):
            columns = [batch.column(name).cast(ids) for name in ID_COLUMNS]
            yield pa.record_batch([batch["article"], *columns], names=["article", *ID_COLUMNS])


def _with_article(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Keep the rows whose article is not empty."""
    kept = pc.greater(pc.binary_length(batch["article"]), 0)
    return batch if pc.all(kept).as_py() else batch.filter(kept)


def _first_rows(batches: Iterable[pa.RecordBatch], limit: int | None) -> Iterator[pa.RecordBatch]:
    left = sys.maxsize if limit is None else limit
    for batch in batches:
        yield batch.slice(0, left)
        left -= batch.num_rows
        if left <= 0:
            return
