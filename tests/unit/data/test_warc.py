"""WARC files: complete records are read, damaged ones are reported."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from random import Random

import pyarrow as pa
import pytest

from bart_cli.data.download.warc import ends_in_record, read_pages
from tests.servers.cc_news import News, write_warc


def record(number: int) -> bytes:
    """Make a gzip member of a page that hardly compresses."""
    html = b"<html>" + Random(number).randbytes(300).hex().encode() + b"</html>"
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + html
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:{number}>\r\n"
        f"WARC-Target-URI: http://x.example/{number}\r\nContent-Type: application/http\r\n"
        f"Content-Length: {len(http)}\r\n\r\n"
    )
    return gzip.compress(head.encode() + http + b"\r\n\r\n", mtime=0)


@pytest.mark.parametrize("cut", [40, 150, 300])
def test_a_file_truncated_in_its_last_record_is_reported(tmp_path: Path, cut: int) -> None:
    """Half of a page was once taken for the whole page."""
    path = tmp_path / "a.warc.gz"
    whole = b"".join(record(number) for number in range(4))
    path.write_bytes(whole)
    assert not ends_in_record(path)
    path.write_bytes(whole[:-cut])
    assert ends_in_record(path)
    damaged: list[int] = []
    assert [page.record for page in read_pages(path, damaged.append)] == ["0", "1", "2"]
    assert damaged == [sum(len(record(number)) for number in range(3))]


def test_bodies_are_decoded_and_other_records_are_counted(tmp_path: Path) -> None:
    import brotli

    html = b"<!doctype html><html><body>" + b"<p>The bridge is open.</p>" * 30 + b"</body></html>"
    packed = gzip.compress(html)
    bare = zlib.compressobj(wbits=-15)
    chunked = b"%x\r\n" % 100 + html[:100] + b"\r\n%X;x=1\r\n" % len(html[100:]) + html[100:]
    bodies = {
        "Content-Encoding: gzip": gzip.compress(html),
        "X-Crawl-Content-Encoding: GZIP": html,
        "Content-Encoding: deflate": zlib.compress(html),
        "Content-Encoding: deflate, identity": bare.compress(html) + bare.flush(),
        "Content-Encoding: br": brotli.compress(html),
        "Content-Encoding: gzip\r\nX": gzip.compress(gzip.compress(html)),
        "X-No-Header: 1": gzip.compress(html[:99]) + gzip.compress(html[99:]),
        "Content-Encoding: zstd": pa.compress(html, codec="zstd", asbytes=True),
        # Brotli has no first bytes of its own, but other bytes do not decode to a page.
        "X-No-Header: br": brotli.compress(html),
        "Content-Encoding: br, gzip": gzip.compress(brotli.compress(html)),
        "Transfer-Encoding: gzip, chunked": b"%x\r\n" % len(packed) + packed + b"\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked": chunked + b"\r\n0\r\n\r\n",
        "Transfer-Encoding: Chunked\r\nX": html,
    }
    pages = [
        News("https://a.example/", body, content_type=f"Text/HTML\r\n{header}")
        for header, body in bodies.items()
    ]
    pages += [News("https://a.example/", html, content_type=kind) for kind in ("", "X/HTML")]
    pages += [
        News("https://a.example/", b"no", content_type="text/html\r\nContent-Encoding: br"),
        News("https://a.example/", brotli.compress(html)[:-9]),
        News("https://a.example/", html, status=404),
    ]
    write_warc(tmp_path / "a.warc.gz", pages)
    dropped: list[str] = []
    found = list(read_pages(tmp_path / "a.warc.gz", lambda _: None, dropped.append))
    assert [page.html for page in found] == [html] * (len(bodies) + 1)
    assert dropped == ["not HTML", "unreadable body", "unreadable body", "HTTP status not 200"]
