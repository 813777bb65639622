"""Dask tasks of preprocessing: convert blocks of documents to samples, and merge them to shards.

They run in worker processes. Inputs are plain arguments; outputs are files.
"""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bart_cli.config.data import require_language
from bart_cli.data.documents import Block, Form, read_blocks
from bart_cli.data.preprocess.packing import last_start, pack
from bart_cli.data.preprocess.word_cache import WordCache
from bart_cli.data.sentences import AUTO, spaced_sentences
from bart_cli.data.shards import shard_schema, write_shard
from bart_cli.data.words import character_starts, word_starts
from bart_cli.errors import UsageError
from bart_cli.files import atomic_file, write_text
from bart_cli.tokenizer import Tokenizer

SPLITS = ("train", "validation")
LENGTH_BINS = 18  # powers of two; the last bin counts documents of 131,072 tokens or more
FILL_BINS = 20
GOLDEN = (5**0.5 - 1) / 2  # its multiples are evenly distributed modulo 1
SAMPLES_AT_ONCE = 1024  # samples held as Python objects at once
HASH = np.dtype([("high", "<u8"), ("low", "<u8")])  # of a document, to find duplicates
LARGEST_WEIGHT = 100


@dataclass(frozen=True)
class PreprocessSettings:
    """Settings that determine the shards: equal settings and inputs give identical bytes."""

    inputs: tuple[tuple[str, Path, Form], ...]  # name, path, form
    target_lengths: tuple[int, ...] = (128,)
    shards: int = 16
    validation_share: float = 0.01
    cross_documents: bool = False
    deduplicate: bool = False
    language: str = AUTO  # for sentence splitting
    weights: tuple[float, ...] = ()  # one per input; empty: all 1

    def __post_init__(self) -> None:
        if not self.inputs:
            raise UsageError("no input: pass --input NAME=PATH or --text PATH")
        paths = [path.resolve() for _, path, _ in self.inputs]
        if twice := [path for _, path, _ in self.inputs if paths.count(path.resolve()) > 1]:
            raise UsageError(
                f"{twice[0]} is given twice", hint=f"Pass it once: --input NAME={twice[0]}:2.0."
            )
        for length in self.target_lengths:
            if not 8 <= length <= 2**15:
                raise UsageError(f"--target-length {length}: expected 8 to {2**15}")
        if self.shards < 1:
            raise UsageError(f"--shards {self.shards}: expected at least 1")
        if not 0 <= self.validation_share < 1:
            raise UsageError(
                f"--validation-share {self.validation_share}: expected at least 0 and below 1"
            )
        require_language(self.language)
        for weight in self.weights:
            if not 0 < weight <= LARGEST_WEIGHT:
                raise UsageError(
                    f"weight {weight} of an input: expected above 0 and at most {LARGEST_WEIGHT}"
                )


@dataclass
class BlockReport:
    """Statistics of a block, counting each copy of a document.

    The keys of the dictionaries are '<length>/<split>'.
    """

    documents: int = 0
    sentences: int = 0
    characters: int = 0
    tokens: int = 0
    samples: dict[str, int] = field(default_factory=dict)
    packed_tokens: dict[str, int] = field(default_factory=dict)  # tokens of the samples
    # Number of documents with [2^i, 2^(i+1)) tokens.
    document_lengths: list[int] = field(default_factory=lambda: [0] * LENGTH_BINS)
    # Number of samples in each of FILL_BINS equal bins from empty to full.
    sample_fill: dict[str, list[int]] = field(default_factory=dict)
    duplicates: int = 0  # documents skipped


@dataclass(frozen=True)
class BlockTask:
    """A block, or those of several small files, and the settings that affect its result."""

    number: int
    blocks: tuple[Block, ...]
    work: Path
    tokenizer: Path
    settings: PreprocessSettings
    weight: float = 1.0  # average number of copies of a document in an epoch

    def file(self, kind: str, suffix: str) -> Path:
        """A file of the task. Kinds: <length>-<split> (samples), hashes, duplicates, reports.

        The report is written last: if it exists, the task is complete.
        """
        return self.work / kind / f"block-{self.number:06d}.{suffix}"


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Disable garbage collection, which would repeatedly scan a block's ids in vain."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@_collector_paused()
def process_block(task: BlockTask) -> BlockReport:
    """Split, tokenize and pack the documents of a task; write a Parquet file per length and split.

    A task that a previous run completed is not repeated.
    """
    done, settings = task.file("reports", "json"), task.settings
    if done.is_file():
        return BlockReport(**json.loads(done.read_text(encoding="utf-8")))
    words, schema, *starts = _tools(task.tokenizer)
    report = BlockReport()
    documents: dict[str, list[tuple[int, list[list[int]]]]] = {split: [] for split in SPLITS}
    skipped: set[int] = set()
    if settings.deduplicate:
        skipped = set(np.load(task.file("duplicates", "npy")).tolist())
    found = [d for n, d in enumerate(read_blocks(task.blocks)) if n not in skipped]
    report.duplicates = len(skipped)
    copies = _copies([name for name, _ in found], task.weight, task.number)
    for (name, text), times in zip(found, copies, strict=True):
        if not times:
            continue
        rows = words.encode(spaced_sentences(text, settings.language))
        split = _split(name, settings.validation_share)
        times = times if split == "train" else 1  # a validation loss needs no copies
        documents[split] += [(copy, rows) for copy in range(times)]
        report.documents += times
        report.sentences += times * len(rows)
        report.characters += times * len(text)
        tokens = sum(map(len, rows))
        report.tokens += times * tokens
        report.document_lengths[min(max(tokens, 1).bit_length(), LENGTH_BINS) - 1] += times
    # Separate the copies of a document, which `cross_documents` might pack into one sample.
    ordered = {s: [rows for _, rows in sorted(d, key=itemgetter(0))] for s, d in documents.items()}
    for length in settings.target_lengths:
        for split, members in ordered.items():
            if settings.cross_documents:
                members = [[sentence for document in members for sentence in document]]
            samples = (s for rows in members for s in pack(rows, length - 2, *starts))
            path = task.file(f"{length}-{split}", "parquet")
            sizes = np.array(_write(path, samples, words, schema), np.int64)
            report.samples[f"{length}/{split}"] = len(sizes)
            report.packed_tokens[f"{length}/{split}"] = int(sizes.sum())
            bins = np.minimum(sizes * FILL_BINS // (length - 2), FILL_BINS - 1)
            counts = np.bincount(bins, minlength=FILL_BINS)
            report.sample_fill[f"{length}/{split}"] = counts.tolist()
    write_text(done, json.dumps(asdict(report)) + "\n")
    return report


@dataclass(frozen=True)
class MergeTask:
    """A shard to write from row ranges (file, begin, end) of block outputs.

    `split_one`: split one of its samples in two. LDDL's loader rejects shards that all have the
    same number of samples; one more sample in one shard satisfies it without losing tokens.
    """

    sources: tuple[tuple[Path, int, int], ...]
    path: Path
    tokenizer: Path
    split_one: bool


def merge_shard(task: MergeTask) -> int:
    """Write one shard, a row group at a time, unless it exists; return its number of samples."""
    if not task.path.is_file():
        write_shard(task.path, _tables(task), _tools(task.tokenizer)[1])
    return int(pq.read_metadata(task.path).num_rows)


def _tables(task: MergeTask) -> Iterator[pa.Table]:
    to_split = task.split_one
    for file, begin, end in task.sources:
        table = pq.ParquetFile(file).read().slice(begin, end - begin)
        for row in range(table.num_rows if to_split else 0):
            if halves := _halves(table.slice(row, 1).to_pylist()[0], task.tokenizer):
                table = pa.concat_tables([table.slice(0, row), halves, table.slice(row + 1)])
                to_split = False
                break
        yield table


def _halves(row: dict[str, Any], tokenizer: Path) -> pa.Table | None:
    """Split a sample in two, between sentences if possible; None if it has only one token."""
    lengths, ids = row["sentence_lengths"], row["input_ids"]
    if len(ids) < 2:
        return None
    words, schema, *starts = _tools(tokenizer)
    if len(lengths) == 1:
        half = len(ids) // 2
        half = next(filter(None, (last_start(ids, half, kind) for kind in starts)), half)
        lengths = [half, len(ids) - half]
    middle = len(lengths) // 2
    cut = sum(lengths[:middle])
    parts = [(ids[:cut], lengths[:middle]), (ids[cut:], lengths[middle:])]
    rows, halves = [part for part, _ in parts], [part for _, part in parts]
    return _table(rows, halves, words, schema)


@lru_cache(maxsize=1)
def _tools(folder: Path) -> tuple[WordCache, pa.Schema, NDArray[np.bool_], NDArray[np.bool_]]:
    """Word cache, shard schema, word starts and character starts of a tokenizer, per process."""
    tokenizer = Tokenizer.from_pretrained(folder)
    schema = shard_schema(tokenizer.vocab_size, tokenizer.fingerprint())
    return WordCache(tokenizer), schema, word_starts(tokenizer), character_starts(tokenizer)


def _copies(names: list[str], weight: float, block: int) -> list[int]:
    """Number of copies of each document of a block in an epoch, on average `weight`.

    The documents whose ids have the lowest hashes get one more copy than the others. Their number
    is rounded with an offset that varies evenly over the blocks, so that rounding errors cancel.
    """
    copies = [int(weight)] * len(names)
    if part := weight % 1:
        more = int(part * len(names) + (0.5 + block * GOLDEN) % 1)
        keys = [hashlib.blake2b(n.encode(), digest_size=8, key=b"mixing").digest() for n in names]
        for number in sorted(range(len(names)), key=keys.__getitem__)[:more]:
            copies[number] += 1
    return copies


def _split(name: str, validation_share: float) -> str:
    """Choose a document's split by its id alone, so that it is the same in every run."""
    digest = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    return "validation" if digest < validation_share * 2**64 else "train"


def _write(
    path: Path, samples: Iterator[list[list[int]]], words: WordCache, schema: pa.Schema
) -> list[int]:
    """Write samples in batches; return the number of tokens in each sample."""
    sizes: list[int] = []

    def tables() -> Iterator[pa.Table]:
        while part := list(islice(samples, SAMPLES_AT_ONCE)):
            rows = [[token for sentence in sample for token in sentence] for sample in part]
            lengths = [[len(sentence) for sentence in sample] for sample in part]
            sizes.extend(map(len, rows))
            yield _table(rows, lengths, words, schema)

    write_shard(path, tables(), schema)
    return sizes


def _table(
    rows: list[list[int]], lengths: list[list[int]], words: WordCache, schema: pa.Schema
) -> pa.Table:
    texts = [text.strip() for text in words.decode(rows)]
    columns = {"sentences": texts, "input_ids": rows, "sentence_lengths": lengths}
    return pa.table(columns, schema=schema)


def hash_block(task: BlockTask) -> None:
    """Hash the documents of a task, unless a previous run did."""
    path = task.file("hashes", "npy")
    if not path.is_file():
        digests = b"".join(
            hashlib.blake2b(text.encode("utf-8"), digest_size=16).digest()
            for _, text in read_blocks(task.blocks)
        )
        _save(path, np.frombuffer(digests, dtype=HASH))


def mark_duplicates(tasks: Sequence[BlockTask]) -> None:
    """Write the indices of repeated documents within each task, after `hash_block`.

    The first of equal documents is kept. The sort needs 44 bytes of memory per document: 4.4 GB for
    100 million.
    """
    parts = [np.load(task.file("hashes", "npy")) for task in tasks]
    lengths = [len(part) for part in parts]
    hashes = np.concatenate(parts)
    del parts  # lowers the peak memory, which sorting reaches
    order = np.lexsort((hashes["low"], hashes["high"]))  # stable: keeps the first of equal hashes
    ordered = hashes[order]
    repeated = np.zeros(len(hashes), dtype=bool)
    repeated[order[1:]] = ordered[1:] == ordered[:-1]
    begin = 0
    for length, task in zip(lengths, tasks, strict=True):
        found = np.flatnonzero(repeated[begin : begin + length])
        _save(task.file("duplicates", "npy"), found)
        begin += length


def _save(path: Path, array: NDArray) -> None:
    with atomic_file(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, array)
