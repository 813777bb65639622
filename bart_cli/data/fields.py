"""Find the texts in the rows of any data set: names of columns, nested objects, lists, dialogues.

In: the names or the values of a row. Out: the columns with id, source and target, or a text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from bart_cli.errors import UsageError

SOURCE_FIELDS = (
    *("article", "document", "text", "dialogue"),
    *("source_text", "input_text", "full_text", "article_text", "report", "transcript"),
    *("source", "documents", "content", "body", "chapter", "story", "description", "input", "src"),
)
TARGET_FIELDS = (
    *("summary", "highlights", "target", "abstract"),
    *("summary_text", "abstract_text", "target_text", "reference_summary"),
    *("summaries", "headline", "tldr", "output", "tgt"),
)
# These names count only if there is no other one: "source" often contains a publisher.
WEAK_FIELDS = {*SOURCE_FIELDS[-9:], *TARGET_FIELDS[-5:]}
# Side of a pair -> its name in messages, and its usual columns.
SIDES = {"source": ("article", SOURCE_FIELDS), "target": ("summary", TARGET_FIELDS)}
# Fields of a turn of a dialogue.
SPEAKERS = ("speaker", "role", "name", "from", "author", "user")
SAID = ("text", "utterance", "content", "value", "message")


class Columns(NamedTuple):
    """Column names of a file; None for a missing column."""

    id: str | None
    source: str | None
    target: str | None


@dataclass(frozen=True)
class Fields:
    """The column names of source and target; None accepts the usual names."""

    source: str | None = None
    target: str | None = None

    def find(self, names: Sequence[str], where: str) -> Columns:
        """Find the columns among `names`, ignoring case."""
        source, target = _named(names, self.source), _named(names, self.target)
        if self.source is None:
            source = _usual(names, "source", target, where)
        if self.target is None:
            target = _usual(names, "target", source, where)
        return Columns(next((n for n in names if plain(n) == "id"), None), source, target)

    def require(self, names: Sequence[str], where: str) -> Columns:
        """Find the columns among `names`; both sides must exist."""
        columns = self.find(names, where)
        for side, (noun, usual) in SIDES.items():
            if getattr(columns, side) is None:
                given = getattr(self, side)
                wanted = f"'{given}' (--{side}-field)" if given else f"one of {', '.join(usual)}"
                raise UsageError(
                    f"{where}: no column for the {noun}: expected {wanted}; found "
                    f"{', '.join(names) or 'none'}",
                    hint=f"Pass --{side}-field with the column of the {noun}.",
                )
        return columns


def plain(name: str) -> str:
    """Normalize a column name: lower case, words joined by underscores."""
    return re.sub(r"[\s-]+", "_", name.strip().lower())


def _named(names: Sequence[str], wanted: str | None) -> str | None:
    """Return the column `wanted`, or else one that differs only in case or separators."""
    if wanted is None or wanted in names:
        return wanted
    return next((name for name in names if plain(name) == plain(wanted)), None)


def _usual(names: Sequence[str], side: str, other: str | None, where: str) -> str | None:
    """Return the column with a usual name, apart from the column of the other side."""
    noun, usual = SIDES[side]
    found = [name for name in names if name != other and plain(name) in usual]
    found = [name for name in found if plain(name) not in WEAK_FIELDS] or found
    if len(found) > 1:
        raise UsageError(
            f"{where}: {len(found)} columns could be the {noun}: {', '.join(found)}",
            hint=f"Choose one with --{side}-field.",
        )
    return found[0] if found else None


def flat_row(row: dict[str, Any]) -> dict[str, Any]:
    """Replace objects in a row by their fields: `{"a": {"b": 1}}` becomes `{"a.b": 1}`."""
    if not any(isinstance(value, dict) for value in row.values()):
        return row
    fields: dict[str, Any] = {}
    for name, value in row.items():
        inner = flat_row(value) if isinstance(value, dict) else {"": value}
        fields |= {f"{name}.{key}".rstrip("."): each for key, each in inner.items()}
    return fields


def source_text(text: str, prefix: str = "") -> str:
    """Strip a text and prepend the model's prefix; a blank text becomes the empty string.

    Inner white space is kept, as in `transformers` and the published fine-tuned models (XSum,
    SAMSum): the line breaks of a dialogue separate its speakers.
    """
    text = text.strip()
    return (prefix + text).strip() if text else ""


def join_texts(value: Any, between: str) -> str | None:
    """Return the text of a value: of a text, a (nested) list of texts, or the turns of a dialogue.

    Each turn with its speaker becomes a line. A missing value is "", and None means no text.
    """
    if value is None or value != value:  # pandas writes NaN for a missing text
        return ""
    if isinstance(value, bytes):  # a Parquet column without a logical type
        return value.decode("utf-8", "replace")
    if isinstance(value, dict):
        said = next((value[name] for name in SAID if isinstance(value.get(name), str)), None)
        speakers = (value[name] for name in SPEAKERS if isinstance(value.get(name), str))
        return said if said is None else ": ".join([*islice(speakers, 1), said])
    if isinstance(value, list | tuple):
        parts = [join_texts(part, between) for part in value]
        if None in parts:
            return None
        between = "\n" if any(isinstance(part, dict) for part in value) else between
        # The sentences of an abstract in the published arXiv and PubMed files are `<S> … </S>`.
        bare = (re.sub(r"^\s*<S>|</S>\s*$", "", text).strip() for text in parts if text)
        return between.join(filter(None, bare))
    return value if isinstance(value, str) else None
