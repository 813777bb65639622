"""Digests of tables are equal if and only if the content is, in any format and chunking."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from bart_cli.data.fields import Fields
from bart_cli.data.table_digest import digest_tables

ROWS: dict[str, list[Any]] = {
    "article": ["One.", None, "Zwei ü", ""],
    "summary": ["a", "b", "c", "d"],
    "source_ids": [[0, 5, 2], [], None, [0, 2]],
}


def digest(*columns: pa.Array, rows: int = 4, **other: list[Any]) -> str:
    table = pa.table(ROWS | other)
    for column in columns:
        table = table.set_column(0, "article", column)
    return digest_tables(table.to_batches(max_chunksize=rows), Fields())


def test_only_content_counts() -> None:
    whole = digest()
    assert {digest(rows=1), digest(rows=3), digest(id=["w", "x", "y", "z"])} == {whole}
    for kind in (pa.large_string(), pa.binary()):
        assert digest(pa.array(ROWS["article"], pa.string()).cast(kind), rows=2) == whole
    for name, rows in {
        "article": ["One.", "", "Zwei ü", ""],
        "summary": ["ab", "", "c", "d"],
        "source_ids": [[0, 5], [2], None, [0, 2]],
    }.items():
        assert digest(**{name: rows}) != whole, name
    assert digest(article=[["One."], ["x", "y"], [], ["z"]], rows=1) == digest(
        article=[["One."], ["x", "y"], [], ["z"]]
    )
