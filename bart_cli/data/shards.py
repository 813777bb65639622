"""Shards of pre-training samples: the Parquet layout of LDDL, with token ids in addition to text.

A folder contains `shard-{i}.parquet` with the columns `sentences` (string, read by LDDL's own
loader), `input_ids` (list<uint16>, or uint32 for large vocabularies; no special tokens) and
`sentence_lengths` (list<uint16>, in tokens), and `.num_samples.json` (file name -> samples).
Text-only shards are tokenized when they are read.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bart_cli.data.denoising import Ids, Ragged
from bart_cli.data.sentences import spaced_sentences
from bart_cli.errors import BartError, UsageError
from bart_cli.files import atomic_file, write_text
from bart_cli.tokenizer import Tokenizer

COUNTS = ".num_samples.json"
ROW_GROUP = 16384  # samples
IDS, TEXT = ["input_ids", "sentence_lengths"], ["sentences"]  # columns to read
VOCABULARY = b"bart_vocabulary"  # file metadata: fingerprint of the tokenizer
ENDS = 64 * 2**10  # bytes at each end of a shard that its digest covers


def ids_type(vocab_size: int) -> pa.DataType:
    """The Arrow type of stored token ids: uint16, or uint32 above 65,536 entries."""
    return pa.uint16() if vocab_size <= 2**16 else pa.uint32()


def shard_schema(vocab_size: int, vocabulary: str | None = None) -> pa.Schema:
    """The Arrow schema of a shard, with the fingerprint of the tokenizer as metadata."""
    return pa.schema(
        [
            ("sentences", pa.string()),
            ("input_ids", pa.list_(ids_type(vocab_size))),
            ("sentence_lengths", pa.list_(pa.uint16())),
        ],
        metadata={VOCABULARY: vocabulary} if vocabulary else None,
    )


@dataclass(frozen=True)
class ShardFolder:
    """The shards of a folder in numerical order, and the number of samples in each."""

    paths: tuple[Path, ...]
    counts: tuple[int, ...]

    @property
    def samples(self) -> int:
        return sum(self.counts)

    def tokens(self) -> int | None:
        """Return the tokens of all samples, from the footers; None for shards without ids."""
        total = 0
        for path in self.paths:
            footer = pq.read_metadata(path)
            for number in range(footer.num_row_groups):
                group = footer.row_group(number)
                columns = map(group.column, range(group.num_columns))
                ids = [c.num_values for c in columns if c.path_in_schema.startswith(IDS[0])]
                if not ids:
                    return None
                total += ids[0]
        return total

    def digests(self) -> dict[str, str]:
        """Return a digest of each shard's size and of both ends of its content, by file name.

        The last bytes are the Parquet footer with sizes and statistics of every column, which
        reveals changed content without reading terabytes. The digest does not depend on the path.
        """
        with ThreadPoolExecutor(16) as pool:
            digests = pool.map(_digest, self.paths)
            return dict(zip([path.name for path in self.paths], digests, strict=True))

    def require_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Check that the ids of the first shard were made with `tokenizer`."""
        with _named_errors(self.paths[0]):
            metadata = pq.read_schema(self.paths[0]).metadata or {}
        own = tokenizer.fingerprint().encode()
        if metadata.get(VOCABULARY, own) != own:
            raise UsageError(
                f"the shards in {self.paths[0].parent} were made with another tokenizer",
                hint="Pass --set data.tokenizer=FOLDER with the tokenizer of `bart preprocess "
                "pretrain`.",
            )

    def read(self, number: int, tokenizer: Tokenizer) -> Samples:
        """Read the samples of one shard.

        Raises:
            UsageError: the number of samples differs from `.num_samples.json`, or an id is out of
                range for the tokenizer.
            BartError: see `read_shard`.
        """
        path = self.paths[number]
        samples = read_shard(path, tokenizer)
        found = len(samples.tokens.lengths)
        if found != self.counts[number]:
            raise UsageError(
                f"{path} has {found:,} samples, but {COUNTS} says {self.counts[number]:,}",
                hint=f"Delete {COUNTS} to count the samples again.",
            )
        highest = int(samples.tokens.values.max(initial=0))
        if highest >= tokenizer.vocab_size:
            raise UsageError(
                f"{path}: token {highest} is out of range for the tokenizer's "
                f"{tokenizer.vocab_size} entries: the shards were made with another tokenizer"
            )
        return samples


@dataclass(frozen=True)
class Samples:
    """The samples of one shard. Values keep the integer type of the file, usually uint16."""

    tokens: Ragged
    sentences: Ragged  # sentence lengths of each sample, in tokens

    def row(self, index: int) -> tuple[Ids, Ids]:
        """Return the tokens and sentence lengths of one sample, as int64."""
        tokens, sentences = self.tokens.row(index), self.sentences.row(index)
        return tokens.astype(np.int64), sentences.astype(np.int64)

    def mapped(self) -> Samples:
        """Move the values to memory-mapped temporary files in TMPDIR.

        The kernel can evict their pages and read them again. The files are already unlinked: their
        disk space is freed when the samples are released or the process is killed.
        """
        parts = (self.tokens, self.sentences)
        return Samples(*(Ragged(_mapped(part.values), part.lengths) for part in parts))


def open_shards(folder: Path) -> ShardFolder:
    """Find the shards of a folder.

    Raises:
        UsageError: there are no shards or samples, a shard listed in `.num_samples.json` is
            missing, or that file is damaged.
    """
    paths = sorted(folder.glob("*.parquet"), key=_number) if folder.is_dir() else []
    if not paths:
        raise UsageError(
            f"no shards (*.parquet) in {folder}",
            hint="Create them with `bart preprocess pretrain`.",
        )
    counts_path = folder / COUNTS
    known: dict[str, int] = {}
    if counts_path.is_file():
        try:
            known = {n: int(c) for n, c in json.loads(counts_path.read_text("utf-8")).items()}
        except (ValueError, TypeError, AttributeError):
            raise UsageError(
                f"{counts_path} is damaged: expected the number of samples of each file",
                hint="Delete it to count the samples again.",
            ) from None
    if missing := [name for name in known if not (folder / name).exists()]:
        are = f"and {len(missing) - 1:,} more are" if len(missing) > 1 else "is"
        raise UsageError(
            f"{folder}: {missing[0]} {are} missing, though listed in {COUNTS}",
            hint=f"Copy the folder again. To train without them, delete {COUNTS}.",
        )
    counts = [known[p.name] if p.name in known else _count(p) for p in paths]
    if not sum(counts):
        raise UsageError(f"the shards in {folder} contain no samples")
    return ShardFolder(tuple(paths), tuple(counts))


def find_tokenizer(
    folder: Path,
    name: str | None = None,
    hint: str = "Pass the one they were made with: --set data.tokenizer=FOLDER.",
) -> Tokenizer:
    """Load the tokenizer `name`, or the one that preprocessing saved in `folder` or next to it."""
    parents = (folder, *folder.absolute().parents[:2])
    beside = (p / "tokenizer" for p in parents if (p / "tokenizer").is_dir())
    if found := name or next(beside, None):
        return Tokenizer.from_pretrained(found)
    raise UsageError(f"no tokenizer next to the data in {folder}", hint=hint)


def resolve_shards(path: Path, sequence_length: int, split: str = "train") -> Path:
    """Find the folder with the shards of a split.

    It is `path`/<length>/<split>, as `bart preprocess pretrain --out path` writes it,
    `path`/<split>, or `path` itself.

    Raises:
        UsageError: none of these folders has shards.
    """
    for folder in (path / str(sequence_length) / split, path / split, path):
        if folder.is_dir() and any(folder.glob("*.parquet")):
            return folder
    if not path.exists():
        raise UsageError(f"no such folder: {path}")
    if not path.is_dir():
        raise UsageError(f"{path} is a file; expected a folder of shards")
    lengths = sorted(int(p.name) for p in path.iterdir() if p.is_dir() and p.name.isdecimal())
    hint = f"Available lengths: {', '.join(map(str, lengths))}." if lengths else None
    raise UsageError(
        f"no {split} shards of {sequence_length} tokens in {path}",
        hint=hint or "Create them with `bart preprocess pretrain`.",
    )


def read_shard(path: Path, tokenizer: Tokenizer) -> Samples:
    """Read all samples of a shard; text-only shards, as LDDL writes them, are tokenized.

    Raises:
        BartError: the file is damaged or lacks the expected columns.
    """
    with _named_errors(path):
        names = set(pq.read_schema(path).names)
        columns = next((c for c in (IDS, TEXT) if names.issuperset(c)), [])
        table = pq.ParquetFile(path).read(columns)
    if not columns:
        raise BartError(f"{path}: no column 'input_ids' or 'sentences'; found {sorted(names)}")
    if columns == TEXT:
        kind = table["sentences"].type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise BartError(f"{path}: column 'sentences' has type {kind}, expected text")
        return encode_samples([text or "" for text in table["sentences"].to_pylist()], tokenizer)
    samples = Samples(*(_checked(table[name].combine_chunks(), path) for name in IDS))
    borders = np.concatenate([[0], np.cumsum(samples.sentences.values, dtype=np.int64)])
    starts = samples.sentences.starts
    sums = borders[starts + samples.sentences.lengths] - borders[starts]
    if wrong := np.flatnonzero(sums != samples.tokens.lengths).tolist():
        raise BartError(f"{path}, row {wrong[0]:,}: sentence_lengths do not match its tokens")
    return samples


def encode_samples(texts: Sequence[str], tokenizer: Tokenizer) -> Samples:
    """Split the texts of samples into sentences and tokenize them, without special tokens."""
    sentences = [spaced_sentences(text) for text in texts]
    flattened = [sentence for sample in sentences for sentence in sample]
    rows = tokenizer.encode_batch(flattened, special=False)
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    per_sample = np.array([len(sample) for sample in sentences], dtype=np.int64)
    owners = np.repeat(np.arange(len(texts)), per_sample)
    tokens = np.bincount(owners, weights=lengths, minlength=len(texts)).astype(np.int64)
    flat = np.array([token for row in rows for token in row], dtype=np.int64)
    return Samples(Ragged(flat, tokens), Ragged(lengths, per_sample))


def write_shard(path: Path, tables: Iterable[pa.Table], schema: pa.Schema) -> None:
    """Write tables as one file, atomically; equal rows give equal bytes.

    Memory holds at most ROW_GROUP rows and one of the tables.
    """
    with (
        atomic_file(path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):
        held = schema.empty_table()
        for table in tables:
            held = pa.concat_tables([held, table])
            while held.num_rows >= ROW_GROUP:
                writer.write_table(held.slice(0, ROW_GROUP).combine_chunks())
                held = held.slice(ROW_GROUP)
        writer.write_table(held.combine_chunks())


def write_counts(folder: Path, counts: dict[str, int]) -> None:
    """Write LDDL's `.num_samples.json`."""
    write_text(folder / COUNTS, json.dumps(counts) + "\n")


def _checked(array: pa.ListArray, path: Path) -> Ragged:
    kind = array.type
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not (lists and pa.types.is_integer(kind.value_type)):
        raise BartError(f"{path}: column type {kind}, expected lists of integers")
    if array.null_count or array.values.null_count:
        raise BartError(f"{path}: a column of type {kind} contains nulls")
    return ragged(array)


def ragged(array: pa.ListArray) -> Ragged:
    """Convert lists of integers without nulls; the values are not copied."""
    # `to_numpy` would import pandas: half a second in each process.
    values: Any = np.from_dlpack(array.flatten())
    return Ragged(values, np.from_dlpack(array.value_lengths()).astype(np.int64))


def _mapped(values: Ids) -> Ids:
    if not len(values):
        return values
    import torch

    kind = getattr(torch, values.dtype.name)
    try:
        with tempfile.NamedTemporaryFile() as file:
            values.tofile(file)
            file.flush()
            # Python's mmap would keep the file open, and a process may open only 1,024 files.
            return torch.from_file(file.name, size=len(values), dtype=kind).numpy()
    except OSError as error:  # numpy names neither the file nor the reason
        raise BartError(
            f"cannot write the ids of a shard to {tempfile.gettempdir()}: {error}",
            hint="Set TMPDIR to a local disk with more free space.",
        ) from None


def _digest(path: Path) -> str:
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(ENDS))
        file.seek(max(0, size - ENDS), os.SEEK_SET)
        digest.update(file.read())
    return digest.hexdigest()[:16]


def _number(path: Path) -> tuple[int, str]:
    digits = "".join(c for c in path.stem if c.isdecimal())
    return (int(digits) if digits else 0, path.name)


def _count(path: Path) -> int:
    with _named_errors(path):
        return int(pq.read_metadata(path).num_rows)


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Convert errors of pyarrow to a one-line error that names the shard."""
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        raise BartError(f"{path}: not a readable shard: {error}") from None
