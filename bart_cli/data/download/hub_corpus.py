"""Download a text corpus from the hub (Wikipedia, OpenWebText) to `source/*.txt`.

In: a data set with a text column. Out: files with a fixed number of documents, so that an
interrupted run can resume with the missing files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bart_cli.data.download.source import Opened, Part, Source, write_documents
from bart_cli.data.hub_pairs import HubDataset
from bart_cli.data.manifest import Manifest
from bart_cli.errors import UsageError
from bart_cli.hub import refusal
from bart_cli.progress import Reporter

if TYPE_CHECKING:
    from datasets import Dataset

DOCUMENTS_PER_FILE = 20_000


@dataclass
class HubSource(Source):
    """A text corpus on the hub."""

    dataset: HubDataset
    extras = ("data",)

    def size(self) -> tuple[str, int]:
        """See Source."""
        return self.dataset.url(), self.dataset.size()


@dataclass
class HubCorpus(HubSource):
    """Files of a fixed number of documents, with the ids `<corpus>-<row id>`.

    Raises UsageError if there is no such data set, or if it has no text column; BartError if the
    hub cannot be reached.

    Attributes:
        jobs: number of processes that download and convert files.
    """

    corpus: str
    jobs: int = 1
    unit = "documents"
    _rows: int = 0

    def settings(self) -> dict[str, Any]:
        """See Source."""
        return {"url": self.dataset.url(), "documents_per_file": DOCUMENTS_PER_FILE}

    @contextmanager
    def open(self, manifest: Manifest, reporter: Reporter) -> Opened:
        """See Source."""
        url = self.dataset.url()
        reporter.info(f"loading {url}")
        rows = self.dataset.load("train", self.jobs, bars=True)
        if "text" not in rows.column_names:
            raise UsageError(f"{url} has no column 'text'; found {rows.column_names}")
        self._rows = len(rows)

        def write(begin: int, end: int, path: Path) -> dict[str, Any]:
            return {"documents": write_documents(path, _documents(rows, begin, end, self.corpus))}

        def parts() -> Iterator[Part]:
            for number, begin in enumerate(range(0, len(rows), DOCUMENTS_PER_FILE)):
                end = min(begin + DOCUMENTS_PER_FILE, len(rows))
                name = f"source/{self.corpus}-{number:05d}.txt"
                yield Part(name, url, partial(write, begin, end), end - begin)

        yield len(rows), parts()

    def dropped(self, manifest: Manifest, failed: int) -> dict[str, int]:
        """See Source."""
        return {"empty": self._rows - manifest.documents}


@dataclass
class HubStream(HubSource):
    """The files of a data set, read as they arrive and not cached; errors as for HubCorpus.

    Attributes:
        split: the split to read.
        column: name of the text column.
        limit: maximum number of rows to read.
    """

    split: str = "train"
    column: str = "text"
    limit: int | None = None
    _read: int = 0

    def __post_init__(self) -> None:
        self.corpus = self.dataset.repository.rpartition("/")[2]

    def settings(self) -> dict[str, Any]:
        """See Source."""
        names = {"url": self.dataset.url(), "split": self.split, "column": self.column}
        return names | {"limit": self.limit}

    @contextmanager
    def open(self, manifest: Manifest, reporter: Reporter) -> Opened:
        """See Source."""
        rows = self.dataset.load(self.split, streaming=True)
        files: int = rows.num_shards

        def write(number: int, path: Path) -> dict[str, Any]:
            left = None if self.limit is None else self.limit - self._read
            name = f"{self.corpus}-{number}"
            part = _Streamed(self.dataset, rows.shard(files, number), name, self.column)
            return {"documents": write_documents(path, islice(part, left)), "rows": part.read}

        def parts() -> Iterator[Part]:
            for number in range(files):
                name = f"source/{self.corpus}-{number:05d}.txt"
                yield Part(name, self.dataset.url(), partial(write, number))
                self._read += manifest.files[name]["rows"]
                if self.limit is not None and self._read >= self.limit:
                    break

        yield files, parts()

    def dropped(self, manifest: Manifest, failed: int) -> dict[str, int]:
        """See Source."""
        return {"empty": self._read - manifest.documents}


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
