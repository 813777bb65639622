"""A text corpus of the hub (Wikipedia, OpenWebText) to `source/*.txt`.

In: a data set with a text column. Out: files of a fixed number of documents, so that a run that was
interrupted resumes with the missing files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bart_cli.data.download.writing import DownloadReport, write_documents
from bart_cli.data.hub_pairs import HubDataset
from bart_cli.data.manifest import Manifest
from bart_cli.errors import UsageError
from bart_cli.files import remove_leftovers
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
    """Write OUT/source/<corpus>-<number>.txt with the ids `<corpus>-<id of the row>`.

    Raises:
        UsageError, BartError: no such data set, no text column, or the hub does not answer.
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
    empty = len(rows) - manifest.documents
    return DownloadReport(
        folder=str(out),
        documents=manifest.documents,
        bytes=manifest.bytes,
        files=len(manifest.files),
        dropped={"empty": empty} if empty else {},
    )


def _documents(rows: Dataset, begin: int, end: int, corpus: str) -> Iterator[tuple[str, str]]:
    named = "id" in rows.column_names
    for number in range(begin, end):
        row = rows[number]
        text = row["text"]  # None where the data set has a gap
        yield f"{corpus}-{row['id'] if named else number}", text if isinstance(text, str) else ""
