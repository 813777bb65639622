"""Pairs of article and summary on disk, in every form that is in use.

In: a folder with `{train,validation,test}` as `.jsonl`, `.parquet` or `.source` + `.target`, or
one such file. Out: pairs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bart_cli.errors import UsageError
from bart_cli.tokenizer import Tokenizer, encodable

SPLITS = {
    "train": ("train",),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test",),
}
VOCABULARY = b"bart_vocabulary"  # in the metadata of a table: the fingerprint of its ids
SUFFIXES = (".jsonl", ".parquet", ".source")
SOURCE_FIELDS = ("article", "document", "source", "text", "dialogue")
TARGET_FIELDS = ("summary", "highlights", "target", "abstract")


@dataclass(frozen=True)
class Pair:
    """An article and its reference summary."""

    id: str
    source: str
    target: str


def find_split(path: Path, split: str) -> Path | None:
    """The file of a split (of `.source` / `.target` the former), None when there is none.

    Raises:
        UsageError: the path does not exist.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise UsageError(f"no such file or folder: {path}")
    for name in SPLITS.get(split, (split,)):
        for suffix in SUFFIXES:
            file = path / f"{name}{suffix}"
            if file.is_file():
                return file
    return None


def read_pairs(path: Path, split: str, *, limit: int | None = None) -> list[Pair]:
    """The pairs of a split.

    Args:
        path: a folder, or one file (then `split` is not looked at).
        limit: the first so many.

    Raises:
        UsageError: no such split, a file that is not UTF-8 or not JSON, fields that are missing,
            sides of different length, or no pair at all.
    """
    file = find_split(path, split)
    if file is None:
        expected = ", ".join(f"{name}.jsonl" for name in SPLITS.get(split, (split,)))
        there = ", ".join(sorted({f.stem for s in SUFFIXES for f in path.glob(f"*{s}")}))
        raise UsageError(
            f"no {split} split in {path}: expected {expected} (or .parquet, .source + .target)",
            hint=f"there are: {there}" if there else None,
        )
    if file.suffix == ".parquet":
        rows = _parquet_rows(file)
    elif file.suffix in (".source", ".target"):
        rows = _parallel_rows(file)
    else:
        rows = _json_rows(file)
    pairs = []
    for pair in rows:
        pairs.append(pair)
        if limit is not None and len(pairs) == limit:
            break
    if not pairs:
        raise UsageError(f"{file} is empty: there is no pair in it")
    return pairs


def _json_rows(file: Path) -> Iterator[Pair]:
    for number, line in enumerate(read_lines(file), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{file}, line {number}: not valid JSON: {error}") from None
        if not isinstance(row, dict):
            raise UsageError(f"{file}, line {number}: expected a JSON object")
        yield _pair(row, f"{file}, line {number}", number)


def _parquet_rows(file: Path) -> Iterator[Pair]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise UsageError(f"{file}: not a readable parquet file: {error}") from None
    text_columns = [n for n in table.column_names if n in (*SOURCE_FIELDS, *TARGET_FIELDS, "id")]
    for number, row in enumerate(table.select(text_columns).to_pylist(), 1):
        yield _pair(row, f"{file}, row {number}", number)


def _parallel_rows(file: Path) -> Iterator[Pair]:
    sides = [list(read_lines(file.with_suffix(suffix))) for suffix in (".source", ".target")]
    if len(sides[0]) != len(sides[1]):
        raise UsageError(
            f"{file} has {len(sides[0]):,} lines, {file.with_suffix('.target').name} has "
            f"{len(sides[1]):,}: line N of one must belong to line N of the other"
        )
    for number, (source, target) in enumerate(zip(*sides, strict=True), 1):
        yield Pair(str(number), source, target)


def read_token_ids(
    file: Path, limit: int | None, tokenizer: Tokenizer
) -> tuple[list[list[int]], list[list[int]]] | None:
    """Source and target ids of a table of `bart preprocess summarization`.

    None for other files, and where the ids are of another vocabulary: the table itself says of
    which, for a tokenizer beside it may be that of another run.
    """
    if file.suffix != ".parquet":
        return None
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = ["source_ids", "target_ids"]
    try:
        schema = pq.read_schema(file)
    except (pa.ArrowInvalid, OSError):
        return None  # whoever reads the text says what is wrong
    vocabulary = (schema.metadata or {}).get(VOCABULARY, b"").decode()
    if not set(columns) <= set(schema.names) or vocabulary != tokenizer.fingerprint():
        return None
    table = pq.read_table(file, columns=columns).slice(0, limit)
    return table["source_ids"].to_pylist(), table["target_ids"].to_pylist()


def read_lines(file: Path) -> Iterator[str]:
    """Lines of a text file without their ends.

    Raises:
        UsageError: no such file, or not UTF-8 (with the line).
    """
    if not file.is_file():
        raise UsageError(f"no such file: {file}")
    with file.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = line[error.start]
                raise UsageError(f"{file} is not UTF-8: line {number}, byte 0x{byte:02x}") from None
            yield text.rstrip("\r\n")


def _pair(row: Mapping[str, Any], where: str, number: int) -> Pair:
    source, target = (
        next((row[name] for name in names if isinstance(row.get(name), str)), None)
        for names in (SOURCE_FIELDS, TARGET_FIELDS)
    )
    if source is None or target is None:
        wanted = SOURCE_FIELDS if source is None else TARGET_FIELDS
        raise UsageError(
            f"{where}: no field for the {'article' if source is None else 'summary'}; "
            f"looked for {', '.join(wanted)}, found {', '.join(row)}"
        )
    name = row.get("id")
    texts = (str(number if name is None else name), source, target)
    return Pair(*(encodable(text) for text in texts))  # JSON can hold what UTF-8 cannot
