"""Digest the content of tables of pairs, independently of file format and division into files.

In: batches of columns. Out: a digest. Values are not converted to Python objects, so that digesting
CNN-DailyMail does not delay the start of a run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from bart_cli.data.fields import Fields

if TYPE_CHECKING:
    import pyarrow as pa

ID_COLUMNS = ["source_ids", "target_ids"]  # columns of prepared pairs


def digest_tables(batches: Iterable[pa.RecordBatch | pa.Table], fields: Fields) -> str:
    """Digest articles, summaries and their ids: 16 hexadecimal digits of a SHA-256."""
    columns: dict[str, list[Any]] = {}
    for batch in batches:
        names = batch.schema.names
        found = fields.find(names, "")
        sides = {"source": found.source, "target": found.target}
        for key, name in (sides | {n: n for n in ID_COLUMNS if n in names}).items():
            column = batch.column(name)
            for chunk in getattr(column, "chunks", [column]):
                _add(chunk, columns.setdefault(key, []), 0)
    total = hashlib.sha256()
    for key, parts in sorted(columns.items()):
        total.update(" ".join([key, *(part.hexdigest() for part in parts)]).encode())
    return total.hexdigest()[:16]


def _add(array: pa.Array, parts: list[Any], depth: int) -> None:
    """Add texts, integers or lists to the digests of lengths (one per depth) and of the content."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    while len(parts) < depth + 2:
        parts.append(hashlib.sha256())
    lengths, content = parts[depth : depth + 2]
    kind = array.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        lengths.update(_numbers(pc.list_value_length(array)))
        _add(array.flatten(), parts, depth + 1)
    elif pa.types.is_integer(kind):
        content.update(_numbers(array))
    elif str(kind).removeprefix("large_") in ("string", "binary"):
        lengths.update(_numbers(pc.binary_length(array)))
        texts = array.drop_null().cast(pa.large_binary())
        _, ends, values = texts.buffers()
        if len(texts) and values is not None:
            borders = np.frombuffer(ends, np.int64)[texts.offset : texts.offset + len(texts) + 1]
            content.update(memoryview(values)[borders[0] : borders[-1]])
    else:
        content.update("".join(map(repr, array.to_pylist())).encode("utf-8", "surrogatepass"))


def _numbers(array: pa.Array) -> bytes:
    """Integers as int64 bytes, nulls as -1."""
    import pyarrow as pa

    content: bytes = array.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False).tobytes()
    return content
