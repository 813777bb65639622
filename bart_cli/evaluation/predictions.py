"""Read predictions from files, for `bart evaluate --predictions` and `bart compare`.

In: JSON lines (also those of `bart evaluate` and `bart summarize`), or text with one summary per
line. Out: the summaries in the order of the pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bart_cli.data.pair_files import json_objects
from bart_cli.data.pairs import Pair, Split
from bart_cli.data.text_files import read_lines, unpacked_name
from bart_cli.errors import UsageError
from bart_cli.files import no_such
from bart_cli.tokenizer import encodable

FIELDS = ("prediction", "summary", "generated_summary", "hypothesis", "output")
JSON = (".jsonl", ".ndjson", ".json")


@dataclass(frozen=True)
class Predictions:
    """The content of a file of predictions."""

    path: Path
    texts: list[str]
    ids: list[str] | None  # ids of the rows; None if they are missing or not unique
    rows: list[dict[str, Any]]  # JSON objects; empty for a text file

    def of_pairs(self, pairs: Sequence[Pair], split: Split) -> list[str]:
        """Return the summaries in the order of the pairs, by id if possible, else line by line."""
        own = [pair.id for pair in pairs]
        if self.ids is not None and len(self.ids) in (len(pairs), split.read):
            by_id = dict(zip(self.ids, self.texts, strict=True))
            known = [i in by_id for i in own]
            if all(known) and len(set(own)) == len(own):
                return [by_id[i] for i in own]
            if any(known):
                missing = own[known.index(False)] if False in known else own[0]
                raise UsageError(
                    f"{self.path} has predictions for the {split.name} split, but none for id "
                    f"{missing}",
                    hint="Score it on the pairs that it was made from.",
                )
        if len(self.texts) != len(pairs):
            skipped = f" ({split.read:,} including skipped ones)" if split.dropped else ""
            raise UsageError(
                f"{self.path} has {len(self.texts):,} predictions, but the {split.name} split has "
                f"{len(pairs):,} pairs{skipped}: expected one for each, in the same order",
                hint="Check --split and --limit; in a text file each line is one summary.",
            )
        return self.texts


def read_predictions(path: Path) -> Predictions:
    """Read a file of predictions, or the `predictions.jsonl` of an evaluation folder."""
    if path.is_dir():
        path = path / "predictions.jsonl"
    if not path.is_file():
        raise no_such(path, "file of predictions")
    if unpacked_name(path).suffix not in JSON:
        texts = [line.strip() for line in read_lines(path)]
        return Predictions(path, texts, None, [])
    texts, rows = [], []
    for number, unit, row in json_objects(path):
        if isinstance(row, str):
            row = {"prediction": row}
        texts.append(_text(row, f"{path}, {unit} {number}"))
        rows.append(row)
    ids = [str(row["id"]) for row in rows if row.get("id") is not None]
    return Predictions(path, texts, ids if len(set(ids)) == len(rows) else None, rows)


def _text(row: Any, where: str) -> str:
    if not isinstance(row, dict):
        raise UsageError(f"{where}: expected a JSON object or a text, found {row!r:.60}")
    name = next((name for name in FIELDS if name in row), None)
    if name is None:
        raise UsageError(
            f"{where}: no field with the summary: expected one of {', '.join(FIELDS)}; found "
            f"{', '.join(row) or 'none'}"
        )
    if not isinstance(row[name], str):
        raise UsageError(f"{where}: {name}: expected a text, found {row[name]!r:.60}")
    return encodable(row[name].strip())
