"""Read the pages of a WARC file (ISO 28500) with one gzip member per record, as in Common Crawl."""

from __future__ import annotations

import gzip
import mmap
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import brotli

from bart_cli.data.download.extractors import Page
from bart_cli.errors import BartError

MEMBER = b"\x1f\x8b\x08"  # first bytes of a gzip member
HTML = {"text/html", "application/xhtml+xml"}
UNKNOWN = {"", "unknown/unknown", "application/unknown", "*/*"}  # sniff the type, as browsers do
MARKUP = re.compile(rb"<(?:!doctype\s+html|html|head|body|title|meta)\b", re.IGNORECASE)
ZSTD = b"\x28\xb5\x2f\xfd"
LAYERS = 3  # of compression around a body
BINARY = re.compile(rb"[\0-\x08\x0b\x0e-\x1a\x1c-\x1f]")  # not in text (WHATWG MIME sniffing)
TAIL = 2**22  # bytes at the end of a file that contain its last record
SNIFFED = 1445  # bytes of a body used to determine its type (WHATWG MIME sniffing)
CHUNK_SIZE = re.compile(rb"(?:\r\n)?([0-9a-fA-F]{1,8})[ \t]*(?:;[^\r\n]*)?\r\n")


def read_pages(
    path: Path, on_damage: Callable[[int], None], on_drop: Callable[[str], None] = lambda _: None
) -> Iterator[Page]:
    """Yield the HTML pages with status 200, in order, with content encodings removed.

    Args:
        on_damage: called for each damaged record with the byte offset of the last page before it.
            Reading continues at the next gzip member.
        on_drop: called with a reason for each page that is skipped.
    """
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    if not path.stat().st_size:
        return
    with (
        path.open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        start, reported = 0, False
        while start >= 0:
            last = start
            stream.seek(start)
            try:
                for record in ArchiveIterator(stream, record_types=WarcRecordType.response):
                    last, reported = record.stream_pos, False
                    if page := _page(record, on_drop):
                        yield page
                return
            except Exception:  # fastwarc raises many types, such as AttributeError
                start = content.find(MEMBER, last + 1)
                if not reported:
                    on_damage(last)
                    reported = True


def check_warc(path: Path) -> None:
    """Check that a file begins like a WARC, unlike a login page.

    Raises:
        BartError: it does not.
    """
    try:
        with path.open("rb") as raw:
            stream = gzip.open(raw) if raw.peek(2)[:2] == MEMBER[:2] else raw  # noqa: SIM115
            begin = stream.read(5)
    except (OSError, EOFError, zlib.error):
        begin = b""
    if begin != b"WARC/":
        raise BartError(f"{path.name} is not a WARC file (an error or login page?)")


def ends_in_record(path: Path) -> bool:
    """Whether the last readable gzip member of a file is truncated."""
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - TAIL))
        tail = stream.read()
    at = tail.rfind(MEMBER)
    while at >= 0:
        member = zlib.decompressobj(31)
        try:
            if member.decompress(tail[at:]).startswith(b"WARC/"):
                return not member.eof
        except zlib.error:
            pass
        at = tail.rfind(MEMBER, 0, at)
    return True


def _page(record: Any, on_drop: Callable[[str], None]) -> Page | None:
    headers = record.http_headers
    if headers is None or headers.status_code != 200:
        on_drop("HTTP status not 200")
        return None
    body = record.reader.read()
    if len(body) < record.content_length:
        raise EOFError  # fastwarc does not report truncation in the last record
    fields = {name.lower(): value for name, value in headers.items()}
    html = _decoded(body, fields)
    if html is None:
        on_drop("unreadable body")
        return None
    kind = fields.get("content-type", "")
    media_type = kind.partition(";")[0].strip().lower()
    if media_type not in HTML and (
        media_type not in UNKNOWN or not MARKUP.search(html[:SNIFFED].replace(b"\0", b""))
    ):
        on_drop("not HTML")
        return None
    number = record.headers["WARC-Record-ID"].strip("<>").rpartition(":")[2]
    return Page(record.headers["WARC-Target-URI"], html, kind, number)


def _decoded(body: bytes, fields: Mapping[str, str]) -> bytes | None:
    """Remove the transfer and content codings of a body; None if it cannot be decoded.

    Crawlers store bodies decoded or as received, and keep the headers in both cases (some with the
    prefix `X-Crawl-`), or drop a header. So the headers count only if the body does not look like a
    page, gzip and zstd are recognized by their first bytes, and Brotli, which has none, is tried.
    """
    if "chunked" in _field(fields, "transfer-encoding"):
        body = _joined(body)
    try:
        body = _unpacked(body)
        for coding in reversed(_field(fields, "content-encoding").split(",")):
            if MARKUP.search(body[:SNIFFED]):
                break
            match coding.strip():
                case "deflate":
                    # The standard says zlib format, but some servers send the raw stream.
                    bare = (int.from_bytes(body[:2], "big") % 31) or body[0] & 15 != 8
                    body = zlib.decompressobj(-15 if bare else 15).decompress(body)
                case "br":
                    body = brotli.decompress(body)
            body = _unpacked(body)
        if not _is_page(body):
            body = brotli.decompress(body)
    except (zlib.error, brotli.error, OSError, ValueError, IndexError):
        return None
    return body if _is_page(body) else None


def _is_page(body: bytes) -> bool:
    begin = body[:SNIFFED]
    return bool(MARKUP.search(begin.replace(b"\0", b""))) or not BINARY.search(begin)


def _unpacked(body: bytes) -> bytes:
    """Remove layers of gzip (all its members) and zstd."""
    for _ in range(LAYERS):
        if body.startswith(ZSTD):
            import pyarrow as pa  # slow to import, and rarely needed

            body = pa.CompressedInputStream(pa.BufferReader(body), "zstd").read()
        pieces = []
        while body.startswith(MEMBER[:2]):
            member = zlib.decompressobj(31)
            pieces.append(member.decompress(body))
            body = member.unused_data
        body = b"".join(pieces) or body
    return body


def _field(fields: Mapping[str, str], name: str) -> str:
    return (fields.get(name) or fields.get(f"x-crawl-{name}") or "").lower()


def _joined(body: bytes) -> bytes:
    """Join the chunks of a chunked body; return `body` itself if it has no chunk sizes."""
    pieces, at = [], 0
    while size := CHUNK_SIZE.match(body, at):
        length = int(size[1], 16)
        pieces.append(body[size.end() : size.end() + length])
        at = size.end() + length + 2
        if not length:
            break
    return b"".join(pieces) or body
