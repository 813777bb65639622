"""Read pairs of article and summary, for preprocessing, fine-tuning and evaluation alike.

In: the argument of `--data`: a folder with `{train,validation,test}` in any format of pair_files, a
single such file, a data set saved by `datasets`, or one on the hub. Out: the pairs of a split.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bart_cli.config.data import SummarizationDataConfig
from bart_cli.data.fields import Fields, join_texts, source_text
from bart_cli.data.hub_pairs import load_from_hub, load_saved
from bart_cli.data.pair_files import NAMES, ROWS, FilePart, Row, find_parts, table_rows
from bart_cli.data.table_digest import ID_COLUMNS, digest_tables
from bart_cli.data.text_files import MARK
from bart_cli.errors import UsageError
from bart_cli.progress import Reporter
from bart_cli.tokenizer import encodable

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev", "eval"),
    "test": ("test", "testing"),
}
NAMED = 5  # maximum number of items listed in a message


@dataclass(frozen=True)
class Pair:
    """An article and its reference summary; `others` are additional references."""

    id: str
    source: str
    target: str
    others: tuple[str, ...] = ()

    @property
    def references(self) -> tuple[str, ...]:
        return (self.target, *self.others)


@dataclass(frozen=True)
class TablePart:
    """A split loaded by `datasets`."""

    name: str
    dataset: Dataset

    def batches(self, fields: Fields, also: Sequence[str] = ()) -> Iterator[pa.Table]:
        dataset = self.dataset.flatten()  # fields of an object become columns: "article.text"
        names = dataset.column_names
        columns = (*fields.require(names, self.name), *also)
        chosen = dataset.select_columns([name for name in names if name in columns])
        return iter(chosen.with_format("arrow").iter(ROWS))

    def rows(self, fields: Fields) -> Iterator[Row]:
        return table_rows(self.batches(fields), fields, self.name)


Part = FilePart | TablePart


@dataclass
class Split:
    """The pairs of a split, and counts of those read and skipped."""

    name: str
    pairs: list[Pair] = field(default_factory=list)
    read: int = 0
    dropped: dict[str, int] = field(default_factory=dict)  # by reason
    # Whether to keep pairs with a summary but an empty article, which scores must include.
    keep_empty: bool = False
    empty: int = 0  # number of these pairs
    joined: int = 0  # summaries joined from a list
    first: dict[str, str] = field(default_factory=dict)  # location of the first pair by reason

    def drop(self, reason: str, where: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
        self.first.setdefault(reason, where)

    def keep(self, pairs: Iterable[Pair]) -> Iterator[Pair]:
        """Yield the pairs and keep them in memory."""
        for pair in pairs:
            self.pairs.append(pair)
            yield pair

    def report(self, reporter: Reporter) -> None:
        """Report skipped pairs, pairs with an empty article, and joined summaries."""
        if self.dropped:
            count = sum(self.dropped.values())
            reasons = (f"{n:,} {why} (first: {self.first[why]})" for why, n in self.dropped.items())
            reporter.warn(
                f"{self.name} split: skipped {count:,} of {self.read:,} pairs: {', '.join(reasons)}"
            )
        if self.empty:
            reporter.warn(
                f"{self.name} split: {self.empty:,} of {self.read:,} pairs have an empty article "
                f"(first: {self.first['empty article']}); their predictions are empty"
            )
        if self.joined:
            reporter.info(
                f"{self.name} split: {self.joined:,} of {self.read:,} summaries are lists, read as "
                "the sentences of one summary. Pass --list-targets references if each item is a "
                "separate summary."
            )


class PairSource:
    """The pairs in a folder, file or data set at `data.path`.

    splits: names of the splits that exist or are held out from the train split.

    Raises:
        UsageError: the path does not exist, or the held-out shares conflict with its splits.
        BartError: the hub cannot be reached.
    """

    def __init__(self, data: SummarizationDataConfig) -> None:
        assert data.path is not None
        self.path, self._data = data.path, data
        self._fields = Fields(data.source_field, data.target_field)
        self._tables: dict[str, list[Part]] = {}
        self._single = self._affixed = False
        self._open()
        own = [split for split in SPLITS if self.parts(split)]
        shares = {"validation": data.validation_share, "test": data.test_share}
        self._shares = {split: share for split, share in shares.items() if share}
        for split in self._shares:
            if split in own:
                raise UsageError(
                    f"{self.path} already has a {split} split, but {split}_share={shares[split]}",
                    hint=f"Drop --{split}-share.",
                )
        if self._shares and "train" not in own:
            raise UsageError(f"{self.path} has no train split to divide")
        self.splits = [split for split in SPLITS if split in own or split in self._shares]

    def _open(self) -> None:
        path = self.path
        if path.is_file():
            self._single, self._tables = True, {"train": [FilePart(path)]}
        elif (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            self._load(path.name, load_saved(path))
        elif not path.is_dir():
            self._load(str(path), load_from_hub(path))
        else:
            self._affixed = not any(find_parts(path, names) for names in SPLITS.values())

    def _load(self, name: str, content: Any) -> None:
        """Take over the splits of a DatasetDict; a Dataset has no splits."""
        if not isinstance(content, dict):
            self._single, content = True, {"train": content}
        for split in content:
            part = TablePart(name if self._single else f"{name}, split {split}", content[split])
            self._tables[split] = [part]

    @property
    def is_whole(self) -> bool:
        """Whether a single file serves as any split, because no part of it is held out."""
        return self._single and not self._shares

    def parts(self, split: str) -> list[Part]:
        """Return the files or tables of a split; none if it is held out or does not exist."""
        names = SPLITS.get(split, (split,))
        if self._tables:
            return next((self._tables[name] for name in names if name in self._tables), [])
        return list(find_parts(self.path, names, affixed=self._affixed))

    def digests(self, split: str) -> dict[str, str]:
        """Return digests, by name, of the content from which the pairs of a split are read.

        For tables, the digest covers the columns that training reads, however they are divided
        into files.
        """
        parts = self.parts("train" if self._single or split in self._shares else split)
        files = [part for part in parts if isinstance(part, FilePart) and not part.is_table]
        if files:
            return {part.path.name: part.digest() for part in files}
        tables = (part.batches(self._fields, ID_COLUMNS) for part in parts)
        return {"pairs": digest_tables(chain.from_iterable(tables), self._fields)}

    def prepared(self, split: str) -> FilePart | None:
        """Return the file of a split if `bart preprocess summarization` may have written it."""
        parts = [] if self._shares else self.parts(split)
        tables = [part for part in parts if isinstance(part, FilePart) and part.is_table]
        return tables[0] if len(tables) == len(parts) == 1 else None

    def read(self, split: str, *, limit: int | None = None, keep_empty: bool = False) -> Split:
        """Read all pairs of a split into memory; see `stream`."""
        result = Split(split, keep_empty=keep_empty)
        result.pairs += self.stream(result, limit)
        return result

    def stream(self, result: Split, limit: int | None = None) -> Iterator[Pair]:
        """Yield the pairs of a split one by one, and count skipped ones in `result`.

        Pairs with an empty side are skipped; in the train split, so are duplicates and pairs whose
        summary equals the article. A single file without held-out shares serves as any split. The
        `pairs` of `result` are not filled.

        Raises:
            UsageError: the split does not exist, a file cannot be read, a column is missing, or no
                pair is usable.
        """
        split = result.name
        parts = self.parts(split)
        if split in self._shares or (split == "train" and self._shares):
            yield from self._held_out(result)[:limit]
            return
        if not parts and self.is_whole:
            parts = self.parts("train")
        if not parts:
            raise self._missing(split)
        pairs = self._usable(parts, result, train=split == "train", keep_empty=result.keep_empty)
        yield from islice(pairs, limit)

    def _usable(
        self, parts: Iterable[Part], result: Split, *, train: bool, keep_empty: bool = False
    ) -> Iterator[Pair]:
        seen: set[bytes] = set()
        found = False
        for part in parts:
            for row in part.rows(self._fields):
                where = f"{part.name}, {row.unit} {row.number}"
                result.read += 1
                source = _text(row.source, where, " ")
                target, *others = self._targets(row.target, where, result)
                if keep_empty and target and not source:
                    result.empty += 1
                    result.first.setdefault("empty article", where)
                elif not source:
                    result.drop("empty article", where)
                    continue
                if not target:
                    result.drop("empty summary", where)
                    continue
                if train:
                    if source.split() == target.split():
                        result.drop("summary is the article", where)
                        continue
                    if (key := _digest(source, target)) in seen:
                        result.drop("duplicate", where)
                        continue
                    seen.add(key)
                found = True
                number = str(row.number if row.id in (None, "") else row.id)
                yield Pair(encodable(number), source, target, tuple(others))
        if not found:
            names = ", ".join(dict.fromkeys(part.name for part in parts))
            if not result.read:
                raise UsageError(f"{names} is empty: it has no pairs")
            reasons = ", ".join(f"{n:,} {reason}" for reason, n in result.dropped.items())
            raise UsageError(f"{names} has no usable pair: {reasons}")

    def _targets(self, value: Any, where: str, result: Split) -> list[str]:
        """The reference summaries: the items of a list are separate or joined (`list_targets`)."""
        if isinstance(value, list | tuple) and self._data.list_targets == "references":
            texts = [_text(item, where, "\n") for item in value]
            return [text for text in texts if text] or [""]
        result.joined += isinstance(value, list | tuple) and len(value) > 1
        return [_text(value, where, "\n")]

    def _held_out(self, result: Split) -> list[Pair]:
        """Read the share of the train split that is held out as a split, or the rest for training.

        Articles are ordered by a keyed hash. The test split is taken from the beginning, the
        validation split from the end. Equal articles stay in the same split.
        """
        whole = list(self._usable(self.parts("train"), result, train=True))
        keys = [_digest(pair.source) for pair in whole]
        splits = dict.fromkeys(keys, "train")
        for name, order in (("test", sorted(keys)), ("validation", sorted(keys, reverse=True))):
            if share := self._shares.get(name):
                splits |= dict.fromkeys(order[: max(1, round(share * len(keys)))], name)
        pairs = [p for p, key in zip(whole, keys, strict=True) if splits[key] == result.name]
        if not pairs or "train" not in splits.values():
            shares = " and ".join(f"{n}_share={share}" for n, share in self._shares.items())
            raise UsageError(f"{self.path} has {len(keys):,} pairs: too few to split with {shares}")
        return pairs

    def report_overlap(self, split: Split, reporter: Reporter) -> int:
        """Warn about pairs whose article is also in the train split, and return their number."""
        if "train" not in self.splits or split.name in ("train", *self._shares) or self._single:
            return 0  # `_single`: the same pairs serve as both splits
        train = self._usable(self.parts("train"), Split("train"), train=True)
        both = {pair.source for pair in split.pairs}.intersection(pair.source for pair in train)
        if found := [pair for pair in split.pairs if pair.source in both]:
            names = ", ".join(pair.id for pair in found[:NAMED])
            more = f" and {len(found) - NAMED:,} more" if len(found) > NAMED else ""
            reporter.warn(
                f"{len(found):,} of {len(split.pairs):,} articles of the {split.name} split are "
                f"also in the train split: id {names}{more}"
            )
        return len(found)

    def _missing(self, split: str) -> UsageError:
        if self.splits:
            hint = f"It has: {', '.join(self.splits)}."
            if split in ("validation", "test") and "train" in self.splits:
                hint = f"Pass --{split}-share 0.05 to hold out part of the train split."
            return UsageError(f"no {split} split in {self.path}", hint=hint)
        if self._tables:
            return UsageError(
                f"no {split} split in {self.path}; found {', '.join(self._tables)}",
                hint=f"Write the rows of a split as {split}.jsonl in a folder.",
            )
        names = SPLITS.get(split, (split,))
        entries = sorted(self.path.iterdir())
        files = [path.name for path in entries if path.is_file()]
        below = [path for path in entries if not path.is_file()]
        folders = [path.name for path in below if find_parts(path, names, affixed=True)]
        readable = folders or [name for name in files if FilePart(Path(name)).form]
        found = f"; found {', '.join(files[:NAMED])}" if files and not readable else ""
        kind = "folders" if folders else "files"
        return UsageError(
            f"no {split} split in {self.path}: expected {names[0]} as {NAMES}{found}",
            hint=f"Name one of its {kind}: {', '.join(readable[:NAMED])}." if readable else None,
        )


def read_pairs(path: Path, split: str, *, limit: int | None = None) -> list[Pair]:
    """Read the (first `limit`) pairs of a split from the usual columns; see PairSource.read."""
    return PairSource(SummarizationDataConfig(path=path)).read(split, limit=limit).pairs


def _text(value: Any, where: str, between: str) -> str:
    """Return the text of a source or target; (nested) lists are joined with `between`."""
    text = join_texts(value, between)
    if text is None:
        raise UsageError(f"{where}: expected a text or a list of texts, found {value!r:.60}")
    return source_text(encodable(text).replace(MARK, ""))  # JSON can hold what UTF-8 cannot


def _digest(*texts: str) -> bytes:
    return blake2b("\0".join(texts).encode(), digest_size=16, key=b"bart pairs").digest()
