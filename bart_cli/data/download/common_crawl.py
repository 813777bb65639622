"""Download CC-NEWS, the news pages that Common Crawl publishes as WARC files, listed by month.

In: a period. Out: OUT/source/<warc>.txt with one article per line, and OUT/manifest.json. Threads
download and processes extract. Each WARC is completed separately, so that little work is lost on
interruption.
"""

from __future__ import annotations

import gzip
import json
import re
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

from bart_cli.data.download.extractors import (
    Extractor,
    Page,
    language,
    load_extractor,
    metadata,
    publishing_date,
)
from bart_cli.data.download.http import Fetcher, MissingError
from bart_cli.data.download.source import Opened, Part, Source, write_documents
from bart_cli.data.download.warc import check_warc, ends_in_record, read_pages
from bart_cli.data.manifest import Manifest, recorded_source
from bart_cli.errors import BartError, UsageError
from bart_cli.files import write_text
from bart_cli.progress import Reporter
from bart_cli.runtime.workers import worker_processes

BASE_URL = "https://data.commoncrawl.org"
FIRST_DAY = date(2016, 8, 26)  # CC-NEWS begins here
MISSING_WARC = "missing WARC"  # key in the report
STAMP = re.compile(r"CC-NEWS-(\d{14})-")


@dataclass(frozen=True)
class NewsFilter:
    """Which articles to keep."""

    start: date  # first and last publishing date, inclusive
    end: date
    strict_date: bool = True  # drop articles whose publishing date is unknown
    languages: tuple[str, ...] = ("en",)  # ISO 639-1 codes; empty allows all
    hosts: tuple[str, ...] = ()  # allowed hosts, including their subdomains; empty allows all

    def __post_init__(self) -> None:
        if self.end < self.start:
            raise UsageError(f"--end {self.end} is before --start {self.start}")

    def reason_to_drop(self, page: Page) -> str | None:
        """Reason to drop a page, or None to keep it. Cheap checks come first."""
        host = urlsplit(page.url).hostname or ""
        if self.hosts and not any(host == h or host.endswith(f".{h}") for h in self.hosts):
            return "other host"
        day = publishing_date(page, doubtful=self.strict_date)
        if day is None and self.strict_date:
            return "no date"
        if day is not None and not self.start <= day <= self.end:
            return "outside the period"
        if self.languages and language(page) not in self.languages:
            return "other language"
        return None


def list_warcs(
    fetcher: Fetcher, base_url: str, start: date, end: date, reporter: Reporter
) -> list[str]:
    """Return the paths of the WARC files crawled from `start` to `end` (inclusive, UTC), in order.

    Raises:
        UsageError: there is no WARC in the period.
        BartError: the server cannot be reached.
    """
    first, stop = f"{start:%Y%m%d}000000", f"{end + timedelta(days=1):%Y%m%d}000000"
    paths, missing = [], []
    for number in range(start.year * 12 + start.month - 1, end.year * 12 + end.month):
        year, month = number // 12, number % 12 + 1
        url = f"{base_url}/crawl-data/CC-NEWS/{year}/{month:02d}/warc.paths.gz"
        try:
            listing = gzip.decompress(fetcher.page(url)[0]).decode("utf-8")
        except MissingError:
            missing.append(f"{year}-{month:02d}")
            continue
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            raise BartError(f"{url}: not a gzip listing: {error}") from None
        for path in listing.split():
            stamp = STAMP.search(path)
            if stamp and first <= stamp[1] < stop:
                paths.append(path)
    if missing:
        reporter.warn(f"no listing for {', '.join(missing)} at {base_url}")
    if not paths:
        raise UsageError(
            f"no WARC of CC-NEWS from {start} to {end} at {base_url}",
            hint=f"CC-NEWS begins on {FIRST_DAY}; choose the crawl with --warc-start and "
            "--warc-end.",
        )
    return sorted(paths)


def end_of_first_run(out: Path) -> date | None:
    """Return the last publishing day recorded by the first run in `out`, or None.

    Without --end, the first run records its own date. Rerunning the command on a later day must
    keep that date.
    """
    recorded = recorded_source(out).get("end")
    try:
        return date.fromisoformat(recorded) if isinstance(recorded, str) else None
    except ValueError:
        return None


@dataclass
class CommonCrawl(Source):
    """The articles of WARC files that pass a filter, in a file per WARC.

    A WARC that cannot be downloaded is reported and skipped; rerunning the command retries it.
    Raises UsageError if the extractor is not installed; BartError if none of the WARC files could
    be downloaded.
    """

    paths: list[str]  # of the WARC files, see `list_warcs`
    news: NewsFilter
    fetcher: Fetcher
    base_url: str = BASE_URL
    extractor: Extractor = "trafilatura"
    jobs: int = 2  # WARC files to process in parallel
    keep_warc: bool = False
    with_metadata: bool = False  # also write OUT/metadata/<warc>.jsonl; see `metadata`
    corpus = "common-crawl"
    unit = "WARCs"
    items = "articles"

    def __post_init__(self) -> None:
        self.threads = self.jobs
        self._begin, self._bytes, self._lock = time.monotonic(), 0, Lock()

    def settings(self) -> dict[str, Any]:
        more = {"metadata": True} if self.with_metadata else {}
        return {**asdict(self.news), "extractor": self.extractor, **more}

    def size(self) -> tuple[str, int]:
        def size(path: str) -> int:
            try:
                return self.fetcher.size(f"{self.base_url}/{path}") or 0
            except MissingError:
                return 0

        with ThreadPoolExecutor(max(self.jobs, 8)) as threads:
            return f"{len(self.paths):,} WARC files", sum(threads.map(size, self.paths))

    @contextmanager
    def open(self, manifest: Manifest, reporter: Reporter) -> Opened:
        load_extractor(self.extractor)
        names = {f"source/{Path(p).name.removesuffix('.warc.gz')}.txt": p for p in self.paths}
        todo = {name: path for name, path in names.items() if not manifest.has(name)}
        if len(todo) < len(names):
            reporter.info(f"{len(names) - len(todo):,} of {len(names):,} WARCs are already done")
        folder = manifest.folder / "warc"

        def part(name: str, path: str) -> Part:
            warc, url = folder / Path(path).name, f"{self.base_url}/{path}"
            write = partial(self._write, url, warc, reporter)
            return Part(name, url, write, spent=None if self.keep_warc else warc)

        yield len(todo), (part(*item) for item in todo.items())
        if not self.keep_warc and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()

    def _write(self, url: str, warc: Path, reporter: Reporter, out: Path) -> dict[str, Any]:
        if not warc.is_file():
            self.fetcher.fetch(url, warc, on_bytes=self._count)
        try:
            check_warc(warc)
        except BartError:
            warc.unlink()  # the next run fetches it again
            raise
        facts = out.parents[1] / "metadata" / f"{out.stem}.jsonl" if self.with_metadata else None
        # One process per WARC: a page that crashes a parser costs its WARC, not the run.
        with worker_processes(1) as process:
            job = (warc, out, self.news, self.extractor, facts)
            report: dict[str, Any] = process.submit(extract_warc, *job).result()
        if report["damaged"] and ends_in_record(warc):
            out.unlink()
            warc.unlink()
            raise BartError(f"{warc.name} ends inside a record: the download was cut short")
        for position in report["damaged"]:
            reporter.warn(f"{warc.name}: skipped a damaged record after byte {position:,}")
        return report

    def _count(self, received: int) -> None:
        with self._lock:
            self._bytes += received

    def detail(self, manifest: Manifest) -> str:
        speed = self._bytes / max(time.monotonic() - self._begin, 1e-3)
        return (
            f"{self._bytes / 1e6:,.1f} MB, {speed / 1e6:,.1f} MB/s, {manifest.documents:,} articles"
        )

    def dropped(self, manifest: Manifest, failed: int) -> dict[str, int]:
        if failed and failed == len(self.paths):
            raise BartError(
                f"none of the {failed:,} WARCs could be downloaded", hint="See the warnings above."
            )
        dropped: Counter[str] = Counter()
        for entry in manifest.files.values():
            dropped.update(entry["dropped"])
            dropped["damaged record"] += len(entry["damaged"])
        dropped[MISSING_WARC] += failed
        return dict(sorted(dropped.items()))

    def stop(self) -> None:
        self.fetcher.stop()
        super().stop()


def extract_warc(
    warc: Path, out: Path, news: NewsFilter, extractor: Extractor, facts: Path | None
) -> dict[str, Any]:
    """Write the articles of one WARC that pass the filter, and their metadata to `facts`.

    Returns:
        pages read, articles written, pages dropped by reason, byte offsets of damaged records.
    """
    extract = load_extractor(extractor)
    kept = 0
    damaged: list[int] = []
    dropped: Counter[str] = Counter()
    rows: list[str] = []

    def articles() -> Iterator[tuple[str, str]]:
        nonlocal kept
        for page in read_pages(warc, damaged.append, lambda reason: dropped.update([reason])):
            try:
                reason = news.reason_to_drop(page)
                text = "" if reason else extract(page).strip()
            except Exception:  # parsers may fail in any way on a page
                reason, text = "failed extraction", ""
            if text:
                kept += 1
                name = f"common-crawl-{page.record}"
                if facts:
                    rows.append(json.dumps({"id": name} | metadata(page)) + "\n")
                yield name, text
            else:
                dropped[reason or "no article"] += 1

    documents = write_documents(out, articles())
    if facts:
        write_text(facts, "".join(rows))
    return {
        "pages": kept + dropped.total(),
        "documents": documents,
        "dropped": dict(sorted(dropped.items())),
        "damaged": damaged,
    }
