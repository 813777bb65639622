"""CNN-DailyMail and XSum as pairs of article and summary, from the hub or from the original files.

Out: {train,validation,test}.jsonl with `id`, `article`, `summary` (one sentence a line), and on
request .source + .target as the reference keeps them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from bart_cli.data.download.hub_dataset import HubDataset
from bart_cli.data.download.manifest import Manifest
from bart_cli.data.download.writing import DownloadReport, write_pairs
from bart_cli.data.pairs import SOURCE_FIELDS, TARGET_FIELDS, Pair
from bart_cli.errors import UsageError
from bart_cli.files import remove_leftovers
from bart_cli.progress import Reporter

SPLITS = ("train", "validation", "test")
URL_LISTS = {"train": "all_train.txt", "validation": "all_val.txt", "test": "all_test.txt"}
ENDS = (".", "!", "?", "...", "'", "`", '"', "\u2019", "\u201d", ")")
XSUM_SPLIT_FILE = "XSum-TRAINING-DEV-TEST-SPLIT-90-5-5.json"
XSUM_PARTS = re.compile(r"\[SN\](URL|TITLE|FIRST-SENTENCE|RESTBODY)\[SN\]")


def download_hub_pairs(
    dataset: HubDataset, out: Path, *, name: str, parallel: bool, jobs: int, reporter: Reporter
) -> DownloadReport:
    """Write the three splits of a data set of the hub.

    Raises:
        UsageError, BartError: no such data set, fields that are missing, no answer.
    """
    dropped = {"pair without summary or text": 0}

    def read(split: str) -> Iterator[Pair]:
        rows = dataset.load(split, jobs)
        fields = [
            next((field for field in names if field in rows.column_names), None)
            for names in (SOURCE_FIELDS, TARGET_FIELDS)
        ]
        if None in fields:
            raise UsageError(f"{dataset.url()}: no article and summary among {rows.column_names}")
        for number, row in enumerate(rows):
            sides = [row[field] if isinstance(row[field], str) else "" for field in fields]
            if all(side.strip() for side in sides):
                yield Pair(str(row.get("id", number)), *sides)
            else:
                dropped["pair without summary or text"] += 1

    return _write(read, out, name, dataset.url(), parallel, dropped, reporter)


def pairs_of_stories(
    stories: Path, url_lists: Path, out: Path, *, parallel: bool, reporter: Reporter
) -> DownloadReport:
    """Write CNN-DailyMail from `.story` files (named by the SHA-1 of their URL) and URL lists.

    Raises:
        UsageError: no story, or a URL list that is missing.
    """
    files = {path.stem: path for path in stories.rglob("*.story")}
    if not files:
        raise UsageError(f"no .story file below {stories}")
    lists = {split: url_lists / name for split, name in URL_LISTS.items()}
    for path in lists.values():
        if not path.is_file():
            raise UsageError(
                f"no URL list {path}", hint=f"expected {', '.join(URL_LISTS.values())}"
            )
    dropped = {"story not there": 0, "story without summary or text": 0}

    def read(split: str) -> Iterator[Pair]:
        for url in lists[split].read_bytes().split():
            name = hashlib.sha1(url).hexdigest()
            path = files.get(name)
            if path is None:
                dropped["story not there"] += 1
                continue
            article, summary = read_story(path.read_text(encoding="utf-8", errors="replace"))
            if article and summary:
                yield Pair(name, article, summary)
            else:
                dropped["story without summary or text"] += 1

    return _write(read, out, "cnn-dm", str(stories), parallel, dropped, reporter)


def read_story(content: str) -> tuple[str, str]:
    """Article and summary (a sentence a line) of a `.story` file.

    Lines that lack a mark at the end get ' .', as in the data that the published models were
    fine-tuned on; lines after `@highlight` are the summary.
    """
    article: list[str] = []
    highlights: list[str] = []
    target = False
    for line in (" ".join(raw.split()) for raw in content.splitlines()):
        if line.startswith("@highlight"):
            target = True
        elif line:
            whole = line if line.endswith(ENDS) else f"{line} ."
            (highlights if target else article).append(whole)
    return " ".join(article), "\n".join(highlights)


def pairs_of_xsum_files(
    files: Path, split_file: Path | None, out: Path, *, parallel: bool, reporter: Reporter
) -> DownloadReport:
    """Write XSum from its extracted files (`<id>.summary` or `<id>.data`) and the split file.

    Raises:
        UsageError: no file of XSum there, or no readable split file.
    """
    found = {p.stem: p for suffix in ("data", "summary") for p in files.rglob(f"*.{suffix}")}
    if not found:
        raise UsageError(f"no .summary or .data file of XSum below {files}")
    splits = _xsum_splits(split_file or files / XSUM_SPLIT_FILE)
    dropped = {"article not there": 0, "article without summary or text": 0}

    def read(split: str) -> Iterator[Pair]:
        for name in splits.get(split, []):
            if name not in found:
                dropped["article not there"] += 1
                continue
            article, summary = read_xsum(found[name].read_text(encoding="utf-8", errors="replace"))
            if article and summary:
                yield Pair(name, article, summary)
            else:
                dropped["article without summary or text"] += 1

    return _write(read, out, "xsum", str(files), parallel, dropped, reporter)


def _xsum_splits(path: Path) -> dict[str, list[str]]:
    """Ids by split; of the split file of XSum."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise UsageError(
            f"no readable split file {path}", hint="--split-file names it; it is part of XSum"
        ) from None
    splits = content.values() if isinstance(content, dict) else [None]
    if not all(isinstance(ids, list) and all(isinstance(i, str) for i in ids) for ids in splits):
        raise UsageError(f'{path}: expected {{"train": [ids], "validation": [ids], "test": [ids]}}')
    return content


def read_xsum(content: str) -> tuple[str, str]:
    """Article and summary (its first sentence) of a file of XSum."""
    parts = XSUM_PARTS.split(content)
    fields = dict(zip(parts[1::2], parts[2::2], strict=True))
    lines = (" ".join(line.split()) for line in fields.get("RESTBODY", "").splitlines())
    return "\n".join(line for line in lines if line), " ".join(
        fields.get("FIRST-SENTENCE", "").split()
    )


def _write(
    read: Callable[[str], Iterator[Pair]],
    out: Path,
    name: str,
    url: str,
    parallel: bool,
    dropped: dict[str, int],
    reporter: Reporter,
) -> DownloadReport:
    manifest = Manifest(out, {"corpus": name, "url": url, "parallel": parallel})
    remove_leftovers(out)
    with reporter.task(name, total=len(SPLITS), unit="splits") as task:
        for split in SPLITS:
            if not manifest.has(f"{split}.jsonl"):
                pairs = list(read(split))
                if not pairs:
                    raise UsageError(f"{url} has no pair for the {split} split")
                *others, jsonl = reversed(write_pairs(out, split, pairs, parallel=parallel))
                for path in others:
                    manifest.add(path.name, url)
                manifest.add(jsonl.name, url, documents=len(pairs))  # last: the mark of done
            task.advance(1, f"{manifest.documents:,} pairs")
    return DownloadReport(
        folder=str(out),
        documents=manifest.documents,
        bytes=manifest.bytes,
        files=len(manifest.files),
        dropped={reason: count for reason, count in dropped.items() if count},
    )
