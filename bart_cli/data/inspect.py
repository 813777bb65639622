"""Inspect data: summarize shards, text or pairs, and show samples next to their noised form."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bart_cli.config.data import DenoisingConfig, SummarizationDataConfig
from bart_cli.data import documents
from bart_cli.data.denoising import Denoiser, Ragged
from bart_cli.data.fields import Fields
from bart_cli.data.pair_files import FilePart
from bart_cli.data.pairs import PairSource
from bart_cli.data.random_keys import Purpose, derive, permutation
from bart_cli.data.shards import open_shards
from bart_cli.errors import UsageError
from bart_cli.files import no_such
from bart_cli.tokenizer import Tokenizer


@dataclass(frozen=True)
class ShardSummary:
    """Statistics of a folder of shards."""

    folder: str
    shards: int
    samples: int
    smallest: int  # samples per shard
    largest: int
    columns: tuple[str, ...]
    mean_tokens: float  # of the samples in the first shard
    longest: int
    # Name, weight, documents, tokens and share of each corpus (both splits), from the report.
    corpora: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Piece:
    """A run of text."""

    text: str
    sentence: int | None  # index of its sentence in the sample, None for a new token
    hidden: bool = False  # in the original, whether noise masks or deletes it


@dataclass(frozen=True)
class Example:
    """A sample and its noised form, cut into pieces."""

    shard: str
    row: int
    original: tuple[Piece, ...]
    noised: tuple[Piece, ...]


@dataclass(frozen=True)
class SourceSummary:
    """How raw text or pairs were interpreted, with some examples."""

    path: str
    kind: str
    form: str  # how documents are separated, or the split
    count: int
    files: int
    not_read: dict[str, int]  # number of skipped files by suffix, or of skipped pairs by reason
    examples: tuple[tuple[str, ...], ...]


def has_shards(path: Path) -> bool:
    """Whether there are shards (not tables of pairs) at or below the folder `path`."""
    files = path.rglob("*.parquet") if path.is_dir() else iter(())
    try:
        return any({"sentences", "input_ids"} & set(pq.read_schema(f).names) for f in files)
    except (pa.ArrowInvalid, OSError):
        return True  # reading the shards reports the damaged one


def summarize_source(path: Path, *, count: int, fields: Fields = Fields()) -> list[SourceSummary]:
    """Summarize raw text (one entry) or pairs (one entry per split), with `count` examples each.

    Raises:
        UsageError: `path` contains neither text nor pairs, or the pairs cannot be read.
    """
    unreadable = None
    try:
        if found := _summarize_pairs(path, count, fields):
            return found
    except UsageError as error:
        if path.is_file() and not path.name.lower().endswith(documents.SUFFIXES):
            raise
        unreadable = error
    try:
        return [_summarize_text(path, count)]
    except UsageError as error:
        raise unreadable or error from None


def _summarize_pairs(path: Path, count: int, fields: Fields) -> list[SourceSummary]:
    """One entry per split; none if no file has a format for pairs."""
    files = path.rglob("*") if path.is_dir() else iter([path])
    has_pairs = any(FilePart(file).form for file in files)
    if path.is_file() and not has_pairs:
        return []
    data = SummarizationDataConfig(
        path=path, source_field=fields.source, target_field=fields.target
    )
    source = PairSource(data)
    if has_pairs and not source.splits:
        source.read("train")  # raises with the missing split
    summaries = []
    for split in source.splits:
        found = source.read(split, keep_empty=split != "train")
        examples = tuple((pair.source, pair.target) for pair in found.pairs[:count])
        name, parts = split if path.is_dir() else "one file", len(source.parts(split))
        summaries.append(
            SourceSummary(
                str(path), "pairs", name, len(found.pairs), parts, found.dropped, examples
            )
        )
    return summaries


def _summarize_text(path: Path, count: int) -> SourceSummary:
    files, others = documents.scan_corpus(path)
    try:
        documents.require_ids(path)
        lines = documents.read_blocks(documents.plan_blocks(path, "lines"))
        with_ids = any(re.search(r"[\d_:-]", name) for name, _ in islice(lines, 5))
        form: documents.Form = "lines" if with_ids else documents.find_form(path)
    except UsageError:
        form = documents.find_form(path)
    texts = documents.read_texts(path, form)
    shown = tuple((text,) for text in islice(texts, count))
    number = len(shown) + sum(1 for _ in texts)
    return SourceSummary(
        str(path), "text", documents.FORMS[form], number, len(files), others, shown
    )


def find_shard_folders(path: Path) -> list[Path]:
    """Return all folders with shards at or below `path`, shorter samples first."""
    if not path.is_dir():
        raise no_such(path)
    folders = sorted(
        {p.parent for p in path.rglob("*.parquet") if not p.parent.name.startswith(".")},
        key=lambda p: [(int(part) if part.isdecimal() else -1, part) for part in p.parts],
    )
    folders = [f for f in folders if ".work" not in f.parts]
    if not folders:
        raise UsageError(
            f"no shards (*.parquet) in {path}", hint="Create them with `bart preprocess pretrain`."
        )
    return folders


def summarize_shards(folder: Path, tokenizer: Tokenizer) -> ShardSummary:
    """Count the samples of a folder and measure those of its first shard."""
    shards = open_shards(folder)
    lengths = shards.read(0, tokenizer).tokens.lengths
    return ShardSummary(
        folder=str(folder),
        shards=len(shards.paths),
        samples=shards.samples,
        smallest=min(shards.counts),
        largest=max(shards.counts),
        columns=tuple(pq.read_schema(shards.paths[0]).names),
        mean_tokens=float(lengths.mean()) if len(lengths) else 0.0,
        longest=int(lengths.max(initial=0)),
        corpora=_corpora(folder),
    )


def _corpora(folder: Path) -> tuple[dict[str, Any], ...]:
    try:
        content = json.loads((folder.parents[1] / "report.json").read_bytes())
        return tuple(content["corpora"])
    except (OSError, ValueError, LookupError, TypeError):  # made by LDDL or an older version
        return ()


def noised_examples(
    folder: Path, tokenizer: Tokenizer, denoising: DenoisingConfig, *, count: int, seed: int
) -> list[Example]:
    """Draw `count` samples at random and noise them as a training run would."""
    shards = open_shards(folder)
    numbers = np.sort(permutation(shards.samples, seed, Purpose.INSPECTED_SAMPLES)[:count])
    borders = np.cumsum(shards.counts)
    owners = np.searchsorted(borders, numbers, side="right")
    denoise = Denoiser(denoising, tokenizer)
    examples: list[Example] = []
    read = lru_cache(maxsize=1)(shards.read)  # the numbers are sorted
    for number, owner in zip(numbers.tolist(), owners.tolist(), strict=True):
        row = number - int(borders[owner]) + shards.counts[owner]
        samples = read(owner, tokenizer)
        tokens, sentences = (Ragged.of([values]) for values in samples.row(row))
        key = derive(seed, Purpose.INSPECTED_NOISE, np.array([number], dtype=np.uint64))
        noised = denoise(tokens, sentences, key).values
        origins = denoise.origins(tokens, sentences, key).values
        owner_of = np.repeat(np.arange(len(sentences.values)), sentences.values)
        hidden = ~np.isin(np.arange(len(tokens.values)), origins)
        examples.append(
            Example(
                shard=shards.paths[owner].name,
                row=row,
                original=_pieces(tokenizer, tokens.values, owner_of, hidden),
                noised=_pieces(
                    tokenizer,
                    noised,
                    np.where(origins < 0, -1, owner_of[np.maximum(origins, 0)]),
                    np.zeros(len(noised), dtype=bool),
                ),
            )
        )
    return examples


def _pieces(
    tokenizer: Tokenizer, ids: np.ndarray, owners: np.ndarray, hidden: np.ndarray
) -> tuple[Piece, ...]:
    """Decode runs of tokens with the same sentence and visibility; each new token is one piece."""
    pieces = []
    begin = 0
    for end in range(1, len(ids) + 1):
        same = end < len(ids) and owners[end] == owners[begin] and hidden[end] == hidden[begin]
        if same and owners[begin] >= 0:
            continue
        text = tokenizer.decode(ids[begin:end].tolist(), skip_special=False)
        owner = int(owners[begin])
        pieces.append(Piece(text, None if owner < 0 else owner, bool(hidden[begin])))
        begin = end
    return tuple(pieces)
