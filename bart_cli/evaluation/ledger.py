"""The ledger: predictions decoded so far, in OUT/progress.jsonl, to resume an evaluation.

The first line identifies model, pairs and settings (`Origin`). Each further line is one round: the
batches that the processes decoded in parallel. A line truncated by a crash is ignored.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bart_cli.config.presets import flatten
from bart_cli.config.run import EvaluateConfig
from bart_cli.data.pairs import Pair
from bart_cli.errors import UsageError
from bart_cli.files import Record, bind, complete_lines, sha256, write_text
from bart_cli.model.formats import model_files, resolve_model

LEDGER = "progress.jsonl"
# Evaluation settings that do not affect decoding: they may change on resume.
SCORING = (
    *("split", "limit", "stemmer", "tokenizer", "language", "bootstrap", "bleu"),
    *("metrics", "bertscore_model", "bertscore_layer"),
)


@dataclass(frozen=True)
class Decoded:
    """The hypotheses of one article, best first, and its index in the split."""

    index: int
    texts: list[str]
    scores: list[float]


@dataclass(frozen=True)
class DecodedBatch:
    """A decoded batch: its number in the plan and the time to decode it."""

    number: int
    seconds: float
    articles: list[Decoded]


@dataclass(frozen=True)
class Origin:
    """Identity of an evaluation: predictions with different origins are never mixed."""

    model: str  # SHA-256 of the model files
    pairs: str  # SHA-256 of the pairs
    settings: dict[str, Any]  # settings that affect decoding, `section.key` -> value


@dataclass
class Ledger:
    """The origin of an evaluation, and its rounds so far."""

    path: Path
    origin: Origin
    articles: int = 0  # 0 before the first round
    cut: int = 0  # truncated articles
    batches: dict[int, DecodedBatch] = field(default_factory=dict)  # by number
    wall: float = 0.0  # seconds of all rounds
    devices: list[str] = field(default_factory=list)

    def begin(self, articles: int, cut: int) -> None:
        """Write the first line, and discard existing content."""
        self.articles, self.cut = articles, cut
        head = asdict(self.origin) | {"articles": articles, "cut": cut}
        write_text(self.path, _line(head))

    def append(self, batches: Sequence[DecodedBatch], wall: float, device: str) -> None:
        """Append a round, which took `wall` seconds."""
        line = {"wall": wall, "device": device, "batches": [asdict(batch) for batch in batches]}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(line))
        self._add(line)

    @property
    def done(self) -> int:
        return sum(len(batch.articles) for batch in self.batches.values())

    @property
    def complete(self) -> bool:
        return 0 < self.articles == self.done

    def in_order(self) -> list[Decoded]:
        """Return the decoded articles, in the order of the split."""
        articles = [article for batch in self.batches.values() for article in batch.articles]
        return sorted(articles, key=lambda article: article.index)

    def _add(self, line: dict[str, Any]) -> None:
        for batch in line["batches"]:
            articles = [Decoded(**article) for article in batch["articles"]]
            self.batches[batch["number"]] = DecodedBatch(**batch | {"articles": articles})
        self.wall += line["wall"]
        if line["device"] not in self.devices:
            self.devices.append(line["device"])


def open_ledger(out: Path, origin: Origin, *, replace: bool = False) -> Ledger:
    """Open the ledger of a folder, which is empty if nothing has been decoded.

    `replace`: discard one with another origin.
    """
    ledger = Ledger(out / LEDGER, origin)
    lines = [line for line, _ in complete_lines(ledger.path)] if ledger.path.is_file() else []
    if len(lines) < 2:  # nothing was decoded, so another origin does not matter
        return ledger
    try:
        head, *rounds = lines
        before = Origin(head["model"], head["pairs"], dict(head["settings"]))
        ledger.articles, ledger.cut = head["articles"], head["cut"]
        for line in rounds:
            ledger._add(line)
    except (KeyError, TypeError, ValueError):
        raise UsageError(
            f"{ledger.path} is damaged: it is not a list of predictions",
            hint="Delete it to decode all articles again.",
        ) from None
    if replace and before != origin:
        return Ledger(ledger.path, origin)
    records = (
        Record(one.settings, {"model": one.model, "the set of pairs (text or --limit)": one.pairs})
        for one in (before, origin)
    )
    bind(out, "an evaluation", *records)
    write_text(ledger.path, "".join(map(_line, lines)))  # drops a truncated last line
    return ledger


def origin_of(config: EvaluateConfig, pairs: Sequence[Pair]) -> Origin:
    assert config.model_path is not None
    evaluation = config.evaluation.model_dump(mode="json", exclude=set(SCORING))
    data = config.data.model_dump(mode="json", include={"max_source_length", "tokenizer", "prefix"})
    generation = config.generation.model_dump(mode="json")
    sections = {"generation": generation, "evaluation": evaluation, "data": data}
    return Origin(model_hash(config.model_path), pairs_hash(pairs), dict(flatten(sections)))


def pairs_hash(pairs: Sequence[Pair]) -> str:
    """Compute the SHA-256 of the ids and texts of pairs."""
    texts = hashlib.sha256()
    for pair in pairs:
        texts.update(_line([pair.id, pair.source, *pair.references]).encode())
    return texts.hexdigest()


def model_hash(source: str) -> str:
    """Compute the SHA-256 of the files of a model."""
    path = resolve_model(source)
    files = [path] if path.is_file() else model_files(path)
    total = hashlib.sha256()
    for file in files:
        total.update(f"{file.name} {sha256(file)}\n".encode())
    return total.hexdigest()


def _line(content: object) -> str:
    return json.dumps(content, allow_nan=False) + "\n"
