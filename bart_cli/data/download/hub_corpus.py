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
from typing import Any

from bart_cli.data.download.source import Opened, Part, Source, write_documents
from bart_cli.data.hub_pairs import HubDataset
from bart_cli.data.manifest import Manifest
from bart_cli.errors import UsageError
from bart_cli.hub import refusal
from bart_cli.progress import Reporter

DOCUMENTS_PER_FILE = 20_000


@dataclass
class HubSource(Source):
    """A text corpus on the hub."""

    dataset: HubDataset
    extras = ("data",)
    _read = 0  # number of rows

    def size(self) -> tuple[str, int]:
        return self.dataset.url(), self.dataset.size()

    def dropped(self, manifest: Manifest, failed: int) -> dict[str, int]:
        return {"empty": self._read - manifest.documents}


@dataclass
class HubCorpus(HubSource):
    """Files of a fixed number of documents, with the ids `<corpus>-<row id>`.

    Raises UsageError if there is no such data set, or if it has no text column; BartError if the
    hub cannot be reached.
    """

    corpus: str
    jobs: int = 1  # processes that download and convert files
    unit = "documents"

    def settings(self) -> dict[str, Any]:
        return {"url": self.dataset.url(), "documents_per_file": DOCUMENTS_PER_FILE}

    @contextmanager
    def open(self, manifest: Manifest, reporter: Reporter) -> Opened:
        url = self.dataset.url()
        reporter.info(f"loading {url}")
        rows = self.dataset.load("train", self.jobs, bars=True)
        if "text" not in rows.column_names:
            raise UsageError(
                f"{url} has no column 'text'; found {rows.column_names}",
                hint="Name the column with `bart download hub --text-column`.",
            )
        self._read = len(rows)
        named = "id" in rows.column_names

        def write(numbers: range, path: Path) -> dict[str, Any]:
            part = ((number, rows[number]) for number in numbers)
            texts = ((f"{self.corpus}-{row['id'] if named else n}", row["text"]) for n, row in part)
            return {"documents": write_documents(path, texts)}

        def parts() -> Iterator[Part]:
            for number, begin in enumerate(range(0, len(rows), DOCUMENTS_PER_FILE)):
                numbers = range(begin, min(begin + DOCUMENTS_PER_FILE, len(rows)))
                name = f"source/{self.corpus}-{number:05d}.txt"
                yield Part(name, url, partial(write, numbers), len(numbers))

        yield len(rows), parts()


@dataclass
class HubStream(HubSource):
    """The files of a data set, read as they arrive and not cached; errors as for HubCorpus."""

    split: str = "train"
    column: str = "text"  # with the documents
    limit: int | None = None  # maximum number of rows to read

    def __post_init__(self) -> None:
        self.corpus = self.dataset.repository.rpartition("/")[2]

    def settings(self) -> dict[str, Any]:
        names = {"url": self.dataset.url(), "split": self.split, "column": self.column}
        return names | {"limit": self.limit}

    @contextmanager
    def open(self, manifest: Manifest, reporter: Reporter) -> Opened:
        url = self.dataset.url()
        rows = self.dataset.load(self.split, streaming=True)
        files: int = rows.num_shards

        def write(number: int, path: Path) -> dict[str, Any]:
            left = None if self.limit is None else self.limit - self._read
            read = 0

            def texts() -> Iterator[tuple[str, Any]]:
                nonlocal read
                for row in islice(self._rows(rows.shard(files, number)), left):
                    if self.column not in row:
                        missing = f"has no column '{self.column}'; found {list(row)}"
                        raise UsageError(f"{url} {missing}", hint="Pass --text-column.")
                    name = f"{self.corpus}-{number}-{row.get('id', read)}"
                    read += 1
                    yield name, row[self.column]

            return {"documents": write_documents(path, texts()), "rows": read}

        def parts() -> Iterator[Part]:
            for number in range(files):
                name = f"source/{self.corpus}-{number:05d}.txt"
                yield Part(name, url, partial(write, number))
                self._read += manifest.files[name]["rows"]
                if self.limit is not None and self._read >= self.limit:
                    break

        yield files, parts()

    def _rows(self, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        try:
            yield from rows
        except Exception as error:  # from `datasets`, its readers or its HTTP clients
            raise refusal(error, self.dataset.repository, "data set", local=False) from error
