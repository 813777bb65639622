"""The pages of a WARC file (ISO 28500), each record a gzip member as Common Crawl writes them."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bart_cli.data.download.extractors import Page

MEMBER = b"\x1f\x8b\x08"  # how a gzip member begins


@dataclass(frozen=True)
class Crawled:
    """A page with the id of its WARC record."""

    record: str
    page: Page


def read_pages(path: Path, on_damage: Callable[[int], None]) -> Iterator[Crawled]:
    """The HTML pages that were answered with 200, in order.

    A damaged record is told to `on_damage` (position in bytes of the last page before it); reading
    goes on at the next gzip member.
    """
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    if not path.stat().st_size:
        return
    with (
        path.open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        start, told = 0, False
        while start >= 0:
            last = start
            stream.seek(start)
            try:
                for record in ArchiveIterator(stream, record_types=WarcRecordType.response):
                    last, told = record.stream_pos, False
                    if crawled := _crawled(record):
                        yield crawled
                return
            except Exception:  # fastwarc raises many kinds, AttributeError among them
                start = content.find(MEMBER, last + 1)
                if not told:
                    on_damage(last)
                    told = True


def _crawled(record: object) -> Crawled | None:
    headers = record.http_headers  # type: ignore[attr-defined]
    kind = record.http_content_type or ""  # type: ignore[attr-defined]
    if headers.status_code != 200 or "html" not in kind:
        return None
    html = record.reader.read()  # type: ignore[attr-defined]
    if len(html) < record.content_length:  # type: ignore[attr-defined]
        raise EOFError  # fastwarc is silent about a file that is cut in its last record
    page = Page(url=record.headers["WARC-Target-URI"], html=html)  # type: ignore[attr-defined]
    return Crawled(record.headers["WARC-Record-ID"].strip("<>").rpartition(":")[2], page)  # type: ignore[attr-defined]
