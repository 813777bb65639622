"""Download a source: write the files that are missing, record each one, and report.

In: a `Source`, which lists the files of a corpus as `Part`s. Out: OUT/source/*.txt with one
document per line (id, space, text), or pairs in OUT/{split}.jsonl, and OUT/manifest.json.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from bart_cli.data.manifest import Manifest
from bart_cli.errors import BartError, first_line
from bart_cli.files import atomic_file, remove_leftovers
from bart_cli.progress import Reporter
from bart_cli.runtime.locks import exclusive
from bart_cli.runtime.workers import kill_workers

REFRESH_SECONDS = 1.0  # between updates of the progress bar while threads work


@dataclass(frozen=True)
class Part:
    """A file of a corpus."""

    name: str  # path below the output folder
    url: str  # origin, recorded in the manifest
    write: Callable[[Path], dict[str, Any]]  # returns facts for the manifest (`documents`, …)
    amount: int = 1  # progress that it makes, in units of the source
    also: tuple[str, ...] = ()  # files that `write` writes beside it
    spent: Path | None = None  # downloaded file to delete once the part is recorded


Opened = Iterator[tuple[int | None, Iterable[Part]]]


class Source(ABC):
    """A corpus or data set to download."""

    corpus: str
    unit: str = "files"  # of progress
    items: str = "documents"  # counted by the report
    extras: tuple[str, ...] = ()  # of the package, needed for the download
    # Parts written at the same time, where a part that fails is skipped. 0: parts are written in
    # order, and the first failure ends the download.
    threads: int = 0

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the settings that determine the files, to be recorded in the manifest."""

    @contextmanager
    @abstractmethod
    def open(self, manifest: Manifest, reporter: Reporter) -> Opened:
        """Open the source; yield the total progress, if known, and the parts in order.

        The source may omit parts that the manifest lists. The context ends after the last part.
        """
        yield None, ()

    def detail(self, manifest: Manifest) -> str:
        """Return the text beside the progress bar."""
        return f"{manifest.documents:,} {self.items}, {manifest.bytes / 1e6:,.1f} MB"

    @abstractmethod
    def dropped(self, manifest: Manifest, failed: int) -> dict[str, int]:
        """Return the number of skipped items by reason; `failed` parts failed in this run.

        Raises:
            BartError: there is no result at all.
        """

    def size(self) -> tuple[str, int]:
        """Describe the download, and return its size in bytes, for a dry run."""
        return "local files", 0

    def stop(self) -> None:
        """Abort the threads that write parts, by ending what they wait for."""
        kill_workers()


@dataclass(frozen=True)
class DownloadReport:
    """Contents of a download folder. `dropped`: number of skipped items by reason."""

    folder: str
    documents: int
    bytes: int
    files: int
    dropped: dict[str, int]


@exclusive
def download(source: Source, out: Path, *, reporter: Reporter) -> DownloadReport:
    """Write the parts of a source that are not yet in `out`.

    Raises:
        UsageError: the source does not exist, or `out` holds another download.
        BartError: it cannot be downloaded.
    """
    manifest = Manifest(out, {"corpus": source.corpus} | source.settings())
    out.mkdir(parents=True, exist_ok=True)
    remove_leftovers(out)
    failed = 0
    with (
        source.open(manifest, reporter) as (total, parts),
        reporter.task(source.corpus, total, source.unit) as task,
    ):
        if source.threads == 0:
            for part in parts:
                if not manifest.has(part.name):
                    _write(part, manifest)
                task.advance(part.amount, source.detail(manifest))
        else:
            for done in _in_threads(source, parts, manifest):
                for part, error in done:
                    if error is not None:
                        failed += 1
                        name = Path(part.url).name if "://" in part.url else part.url
                        where = "" if name in error.message else f"{name}: "
                        reporter.warn(f"skipped: {where}{error.message}")
                    task.advance(part.amount)
                task.advance(0, source.detail(manifest))
    dropped = source.dropped(manifest, failed)
    return DownloadReport(
        folder=str(out),
        documents=manifest.documents,
        bytes=manifest.bytes,
        files=len(manifest.files),
        dropped={reason: count for reason, count in dropped.items() if count},
    )


def _write(part: Part, manifest: Manifest) -> None:
    facts = part.write(manifest.folder / part.name)
    for name in part.also:
        manifest.add(name, part.url)
    manifest.add(part.name, part.url, **facts)
    if part.spent is not None:
        part.spent.unlink()


def _in_threads(
    source: Source, parts: Iterable[Part], manifest: Manifest
) -> Iterator[list[tuple[Part, BartError | None]]]:
    """Write parts in threads; yield every second those that are done, with the error of each.

    Errors that are not of a single part, such as a full disk, end the download.
    """
    pending: dict[Future[None], Part] = {}
    with ThreadPoolExecutor(source.threads) as threads:
        try:
            for part in chain(parts, [None]):
                if part is not None:
                    pending[threads.submit(_write, part, manifest)] = part
                while len(pending) > (4 * source.threads if part else 0):  # bounds the memory
                    done = []
                    for future in wait(pending, REFRESH_SECONDS, FIRST_COMPLETED).done:
                        error = future.exception()
                        if error is not None and not isinstance(error, BartError):
                            raise error
                        done.append((pending.pop(future), error))
                    yield done
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            source.stop()
            raise


def write_documents(path: Path, documents: Iterable[tuple[str, Any]]) -> int:
    """Write (id, text) pairs as lines, atomically, and return their number.

    Empty texts and other values (None) are skipped. White space in an id becomes `_`, so that an
    id is one word.
    """
    count = 0
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for name, text in documents:
            if isinstance(text, str) and (folded := " ".join(clean(text).split())):
                stream.write(f"{'_'.join(clean(name).split())} {folded}\n")
                count += 1
    return count


def damage(error: BaseException) -> str:
    """Describe in one line why an archive cannot be read."""
    line = first_line(error)  # tarfile lists every method that it tried on a line of its own
    return "not a tar archive, or truncated" if line.endswith(":") else line


def clean(text: str) -> str:
    """Replace lone surrogates, which UTF-8 cannot encode, and remove NUL characters."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "")
