"""Download a text corpus from the hub (Wikipedia, OpenWebText) to `source/*.txt`.

In: a data set with a text column. Out: files with a fixed number of documents, so that an
interrupted run can resume with the missing files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bart_cli.data.download.writing import DownloadReport, write_documents
from bart_cli.data.hub_pairs import HubDataset
from bart_cli.data.manifest import Manifest
from bart_cli.errors import UsageError
from bart_cli.files import remove_leftovers
from bart_cli.hub import refusal
from bart_cli.progress import Reporter
from bart_cli.runtime.locks import exclusive

if TYPE_CHECKING:
    from datasets import Dataset

DOCUMENTS_PER_FILE = 20_000


@exclusive
def download_hub_corpus(
    dataset: HubDataset,
    out: Path,
    *,
    corpus: str,
    jobs: int = 1,
    per_file: int = DOCUMENTS_PER_FILE,
    reporter: Reporter,
) -> DownloadReport:
    """Write OUT/source/<corpus>-<number>.txt, with the document ids `<corpus>-<row id>`.

    Args:
        jobs: number of processes that download and convert files.
        per_file: documents per output file.

    Raises:
        UsageError: there is no such data set, or it has no text column.
        BartError: the hub cannot be reached.
    """
    source = {"corpus": corpus, "url": dataset.url(), "documents_per_file": per_file}
    manifest = Manifest(out, source)
    remove_leftovers(out)
    reporter.info(f"loading {dataset.url()}")
    rows = dataset.load("train", jobs, bars=True)
    if "text" not in rows.column_names:
        raise UsageError(f"{dataset.url()} has no column 'text'; found {rows.column_names}")
    with reporter.task(corpus, total=len(rows), unit="documents") as task:
        for number, begin in enumerate(range(0, len(rows), per_file)):
            name = f"source/{corpus}-{number:05d}.txt"
            end = min(begin + per_file, len(rows))
            if not manifest.has(name):
                documents = write_documents(out / name, _documents(rows, begin, end, corpus))
                manifest.add(name, dataset.url(), documents=documents)
            task.advance(end - begin, f"{manifest.bytes / 1e6:,.1f} MB")
    return _report(out, manifest, len(rows))


@exclusive
def stream_hub_corpus(
    dataset: HubDataset,
    out: Path,
    *,
    split: str = "train",
    column: str = "text",
    limit: int | None = None,
    reporter: Reporter,
) -> DownloadReport:
    """Write OUT/source/<name>-<number>.txt for each file of a data set, without caching it.

    Args:
        column: name of the text column.
        limit: maximum number of rows to read.

    Raises:
        UsageError, BartError: see `download_hub_corpus`.
    """
    corpus = dataset.repository.rpartition("/")[2]
    source = {"corpus": corpus, "url": dataset.url(), "split": split, "column": column}
    manifest = Manifest(out, source | {"limit": limit})
    remove_leftovers(out)
    rows = dataset.load(split, streaming=True)
    files: int = rows.num_shards
    read = 0
    with reporter.task(corpus, total=files, unit="files") as task:
        for number in range(files):
            name = f"source/{corpus}-{number:05d}.txt"
            if not manifest.has(name):
                left = None if limit is None else limit - read
                part = _Streamed(dataset, rows.shard(files, number), f"{corpus}-{number}", column)
                documents = write_documents(out / name, islice(part, left))
                manifest.add(name, dataset.url(), documents=documents, rows=part.read)
            read += manifest.files[name]["rows"]
            task.advance(1, f"{manifest.bytes / 1e6:,.1f} MB")
            if limit is not None and read >= limit:
                break
    return _report(out, manifest, read)


def _report(out: Path, manifest: Manifest, rows: int) -> DownloadReport:
    empty = rows - manifest.documents
    return DownloadReport(
        folder=str(out),
        documents=manifest.documents,
        bytes=manifest.bytes,
        files=len(manifest.files),
        dropped={"empty": empty} if empty else {},
    )


@dataclass
class _Streamed:
    """The (id, text) pairs of the rows of one file. read: number of rows read so far."""

    dataset: HubDataset
    rows: Iterable[dict[str, Any]]
    name: str
    column: str
    read: int = 0

    def __iter__(self) -> Iterator[tuple[str, str]]:
        rows = iter(self.rows)
        while (row := self._next(rows)) is not None:
            if self.column not in row:
                raise UsageError(
                    f"{self.dataset.url()} has no column '{self.column}'; found {list(row)}",
                    hint="Pass --text-column.",
                )
            text = row[self.column]
            name = f"{self.name}-{row.get('id', self.read)}"
            self.read += 1
            yield name, text if isinstance(text, str) else ""

    def _next(self, rows: Iterator[dict[str, Any]]) -> dict[str, Any] | None:
        try:
            return next(rows, None)
        except Exception as error:  # from `datasets`, its readers or its HTTP clients
            raise refusal(error, self.dataset.repository, "data set") from error


def _documents(rows: Dataset, begin: int, end: int, corpus: str) -> Iterator[tuple[str, str]]:
    named = "id" in rows.column_names
    for number in range(begin, end):
        row = rows[number]
        text = row["text"]  # may be None
        yield f"{corpus}-{row['id'] if named else number}", text if isinstance(text, str) else ""
