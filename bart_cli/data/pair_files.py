"""Read rows from files of pairs: JSON, JSON lines, CSV, TSV, Parquet, Arrow, .source + .target.

In: a file, and the names of its columns unless they are among the usual ones. Out: rows with the
raw values of id, source and target.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bart_cli.data.fields import Columns, Fields, flat_row
from bart_cli.data.manifest import recorded_source
from bart_cli.data.text_files import HEAD, read_lines, refuse_binary, unpacked_name
from bart_cli.errors import UsageError
from bart_cli.files import sha256

if TYPE_CHECKING:
    import pyarrow as pa

FORMS = {
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "JSON"),
    ".csv": "CSV",
    ".tsv": "TSV",
    ".parquet": "Parquet",
    **dict.fromkeys((".arrow", ".feather"), "Arrow"),
    **dict.fromkeys((".source", ".target", ".src", ".tgt"), "parallel"),
}
TARGET_OF = {".source": ".target", ".src": ".tgt"}
NAMES = ".jsonl, .json, .csv, .tsv, .parquet, .arrow, or .source + .target"
# `train-00000-of-00002`; older data sets on the hub append a hash.
SHARD = re.compile(r"-\d{5}-of-(\d{5})(-[0-9a-f]+)?$")
DELIMITERS = (",", ";", "\t", "|")
ROWS = 1024  # rows of a table that are converted to Python objects at once


class Row(NamedTuple):
    """A row: its position in the file, and its raw values."""

    number: int
    unit: str  # of `number`: "line" or "row"
    id: Any
    source: Any
    target: Any


@dataclass(frozen=True)
class FilePart:
    """A file of rows."""

    path: Path

    @property
    def name(self) -> str:
        """The name of the file in messages."""
        return str(self.path)

    @cached_property
    def form(self) -> str | None:
        """The format by suffix, a value of FORMS; None for other files."""
        return FORMS.get(unpacked_name(self.path).suffix)

    def digest(self) -> str:
        """Return the first 16 hexadecimal digits of each file's SHA-256."""
        files = _both_sides(self.path) if self.form == "parallel" else [self.path]
        return "".join(sha256(path)[:16] for path in files if path.is_file())

    def rows(self, fields: Fields) -> Iterator[Row]:
        """Yield the rows, in order.

        Raises:
            UsageError: the file cannot be read or is malformed, or a column is missing.
        """
        if self.form == "JSON":
            return _json_rows(self.path, fields)
        if self.form in ("CSV", "TSV"):
            return _separated_rows(self.path, self.form, fields)
        if self.form == "parallel":
            return _parallel_rows(self.path)
        if self.is_table:
            return table_rows(self.batches(fields), fields, self.name)
        if self.path.is_file():
            with self.path.open("rb") as stream:
                refuse_binary(str(self.path), stream.read(HEAD))
        raise UsageError(
            f"{self.path} has an unknown format: expected {NAMES}, optionally with .gz, .bz2 or .xz"
        )

    @property
    def is_table(self) -> bool:
        """Whether the format has typed columns."""
        return self.form in ("Parquet", "Arrow")

    def batches(self, fields: Fields, also: Sequence[str] = ()) -> Iterator[pa.Table]:
        """Yield batches of a table with the columns of `fields`, and those of `also` that exist."""
        import pyarrow as pa

        kind, batches = "Arrow", _arrow_batches
        if self.form == "Parquet":
            kind, batches = "parquet", _parquet_batches
        try:
            for batch in batches(self.path, fields, also):
                # A column for each field of an object, such as "article.text".
                yield pa.Table.from_batches([batch]).flatten()
        except (pa.ArrowInvalid, OSError) as error:
            raise UsageError(f"{self.path}: not a readable {kind} file: {error}") from None


def find_parts(folder: Path, names: Sequence[str], *, affixed: bool = False) -> list[FilePart]:
    """Find the files of a split in a folder or its `data/`: one file, or all shards.

    If `affixed`, accept `samsum-train.csv` and `train_v2.csv` as `train.csv`, and `train/*.csv` as
    its shards.

    Raises:
        UsageError: the split exists more than once, or a shard is missing.
    """
    found: dict[tuple[object, ...], list[Path]] = {}
    folders = [folder, folder / "data"]
    folders += [place / name for place in folders for name in names if affixed]
    for place in folders:
        for path in sorted(place.iterdir()) if place.is_dir() else []:
            bare = unpacked_name(path)
            if bare.suffix not in FORMS or bare.suffix in TARGET_OF.values() or not path.is_file():
                continue  # a .target is read with its .source
            if path.name.startswith("."):  # such as ._train.csv, from an archive made by macOS
                continue
            name = SHARD.sub("", bare.stem)
            if affixed:
                words = re.split(r"[-_. ]", name)
                name = next((n for n in names if n in (words[0], words[-1], place.name)), name)
            if name in names:
                is_whole = SHARD.search(bare.stem) is None and place.name not in names
                key = (place, name, path.suffix, is_whole and bare.stem)
                found.setdefault(key, []).append(path)
    groups = list(found.values())
    if len(groups) > 1 and recorded_source(folder).get("parallel"):
        # `bart download --parallel` writes the same pairs in two formats.
        groups = [group for group in groups if FilePart(group[0]).form != "parallel"]
    if len(groups) > 1:
        listed = " and ".join(str(group[0].relative_to(folder)) for group in groups)
        raise UsageError(
            f"{folder} contains the {names[0]} split {len(groups)} times: {listed}",
            hint="Keep one of them, or name the file itself.",
        )
    files = groups[0] if groups else []
    for path in files:
        shard = SHARD.search(unpacked_name(path).stem)
        if shard is not None and int(shard[1]) != len(files):
            raise UsageError(
                f"{path.parent} contains {len(files)} of the {int(shard[1])} shards of the "
                f"{names[0]} split",
                hint="Download the missing ones.",
            )
    return [FilePart(path) for path in files]


def _json_rows(path: Path, fields: Fields) -> Iterator[Row]:
    known: dict[tuple[str, ...], Columns] = {}
    first = ""  # location of the first row
    for number, unit, row in json_objects(path):
        where = f"{path}, {unit} {number}"
        if not isinstance(row, dict):
            raise UsageError(f"{where}: expected a JSON object")
        row = flat_row(row)
        first = first or where
        names = tuple(row)
        if names not in known:
            known[names] = fields.find(names, where)
        values = (None if name is None else row[name] for name in known[names])
        yield Row(number, unit, *values)
    # Some rows may lack a side, but not all.
    if known and all(None in (columns.source, columns.target) for columns in known.values()):
        fields.require(next(iter(known)), first)


def json_objects(path: Path) -> Iterator[tuple[int, str, Any]]:
    """Yield (number, unit, record) from JSON lines or one JSON document.

    The document may be an array of records, an object with such an array in "data", an object of
    columns, or a single record.
    """
    head = next((line for line in read_lines(path) if line.strip()), "").lstrip()
    if head.startswith("[") or (head and unpacked_name(path).suffix == ".json"):
        try:
            records = _records(json.loads("".join(read_lines(path))))
        except (ValueError, RecursionError) as error:
            # A second object follows: JSON lines often have the suffix .json.
            if getattr(error, "msg", "") != "Extra data" or not head.startswith("{"):
                raise _bad_json(path, getattr(error, "lineno", 1), error) from None
        else:
            yield from ((number, "row", record) for number, record in enumerate(records, 1))
            return
    for number, line in enumerate(read_lines(path), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise _bad_json(path, number, error) from None
            yield number, "line", row


def _records(content: Any) -> list[Any]:
    """Return the records of a JSON document."""
    if not isinstance(content, dict):
        return content if isinstance(content, list) else [content]
    if isinstance(content.get("data"), list):
        return list(content["data"])
    columns = [list(v.values()) if isinstance(v, dict) else v for v in content.values()]  # pandas
    if not all(isinstance(column, list) for column in columns) or len(set(map(len, columns))) != 1:
        return [content]
    return [dict(zip(content, row, strict=True)) for row in zip(*columns, strict=True)]


def _bad_json(path: Path, line: int, error: Exception) -> UsageError:
    problem = str(error)
    if isinstance(error, json.JSONDecodeError):
        problem = f"{error.msg.removesuffix(' at')} (column {error.colno})"
    return UsageError(f"{path}, line {line}: not valid JSON: {problem}")


def _separated_rows(path: Path, form: str, fields: Fields) -> Iterator[Row]:
    """Yield the rows of CSV or TSV after the header; CSV may use any of DELIMITERS."""
    csv.field_size_limit(2**31 - 1)
    content = read_lines(path)
    header = next((line for line in read_lines(path) if line.strip()), "")
    if "\r" in header.rstrip("\r\n"):  # line ends of Excel for the classic Mac
        content = io.StringIO("".join(content), newline=None)
        header = header.partition("\r")[0]
    stated = re.fullmatch(r"sep=(.)\s*", header)  # Excel's first line
    if stated is not None:
        delimiter = stated[1]
        next(content)
    else:
        delimiter = "\t" if form == "TSV" else max(DELIMITERS, key=header.count)
    quoted = form == "CSV" or _quotes_as_csv(path)
    reader = csv.reader(
        content,
        delimiter=delimiter,
        strict=quoted,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
    )
    names: list[str] = []
    places: list[int | None] = []
    first = 1 if stated is None else 2
    begin = first  # the line on which a row begins; a row may span several lines
    try:
        for values in reader:
            where = f"{path}, line {begin}"
            if values and not names:
                names = [name.strip() for name in values]
                columns = fields.require(names, where)
                places = [None if name is None else names.index(name) for name in columns]
            elif values:
                if len(values) != len(names):
                    raise UsageError(
                        f"{where}: {len(values)} fields, but {len(names)} columns",
                        hint="Put quotation marks around texts with separators or line breaks.",
                    )
                cells = (None if place is None else values[place] for place in places)
                yield Row(begin, "line", *cells)
            begin = reader.line_num + first
    except csv.Error as error:
        raise UsageError(
            f"{path}, line {begin}: not valid {form}: {error}",
            hint='Write each quotation mark in a text twice (""), or convert the file to JSON '
            "lines.",
        ) from None


def _quotes_as_csv(path: Path) -> bool:
    """Whether a TSV file quotes fields as CSV does; in plain TSV, quotes are literal."""
    try:
        for _ in csv.reader(read_lines(path), delimiter="\t", strict=True):
            pass
    except csv.Error:
        return False
    return True


def _both_sides(path: Path) -> list[Path]:
    """Return the `.source` and the `.target` file (or `.src` and `.tgt`), given either of them."""
    base, given, packed = re.split(
        r"(\.source|\.target|\.src|\.tgt)(?=(?:\.\w+)?$)", path.name, flags=re.I
    )
    ends = next(pair for pair in TARGET_OF.items() if given.lower() in pair)
    return [
        path.with_name(f"{base}{given if given.lower() == end else end}{packed}") for end in ends
    ]


def _parallel_rows(path: Path) -> Iterator[Row]:
    """Pair the lines of `NAME.source` and `NAME.target`, given either of them."""
    files = _both_sides(path)
    sides = [[line.rstrip("\r\n") for line in read_lines(file)] for file in files]
    if len(sides[0]) != len(sides[1]):
        raise UsageError(
            f"{files[0]} has {len(sides[0]):,} lines, {files[1].name} has {len(sides[1]):,}: "
            "line N of one must match line N of the other"
        )
    for number, (source, target) in enumerate(zip(*sides, strict=True), 1):
        yield Row(number, "line", None, source, target)


def _parquet_batches(path: Path, fields: Fields, also: Sequence[str]) -> Iterator[pa.RecordBatch]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.empty_table().flatten().column_names
        columns = (*fields.require(names, str(path)), *also)
        yield from file.iter_batches(ROWS, columns=[name for name in names if name in columns])


def _arrow_batches(path: Path, fields: Fields, also: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield the batches of an Arrow file, in the file format or the stream format of `datasets`.

    They have all columns: the file is memory-mapped.
    """
    import pyarrow as pa

    with pa.memory_map(str(path)) as content:
        if content.read(6) == b"ARROW1":
            file = pa.ipc.open_file(content)
            batches = map(file.get_batch, range(file.num_record_batches))
        else:
            content.seek(0)
            file = batches = pa.ipc.open_stream(content)
        fields.require(file.schema.empty_table().flatten().column_names, str(path))
        yield from batches


def table_rows(batches: Iterable[pa.Table], fields: Fields, where: str) -> Iterator[Row]:
    """Yield the rows of a table given in batches."""
    numbers = count(1)
    for batch in batches:
        columns = fields.require(batch.column_names, where)
        for part in batch.to_batches(max_chunksize=ROWS):
            sides = [
                [None] * part.num_rows if name is None else part.column(name).to_pylist()
                for name in columns
            ]
            for values in zip(*sides, strict=True):
                yield Row(next(numbers), "row", *values)
