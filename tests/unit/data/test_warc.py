"""WARC files: what is whole is read, what is damaged is told."""

from __future__ import annotations

import gzip
from pathlib import Path
from random import Random

import pytest

from bart_cli.data.download.warc import read_pages


def record(number: int) -> bytes:
    """A gzip member with a page that hardly compresses."""
    html = b"<html>" + Random(number).randbytes(300).hex().encode() + b"</html>"
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + html
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:{number}>\r\n"
        f"WARC-Target-URI: http://x.example/{number}\r\nContent-Type: application/http\r\n"
        f"Content-Length: {len(http)}\r\n\r\n"
    )
    return gzip.compress(head.encode() + http + b"\r\n\r\n", mtime=0)


@pytest.mark.parametrize("cut", [40, 150, 300])
def test_a_file_that_is_cut_in_its_last_record_is_told(tmp_path: Path, cut: int) -> None:
    """Half of a page was taken for the whole of it."""
    path = tmp_path / "a.warc.gz"
    path.write_bytes(b"".join(record(number) for number in range(4))[:-cut])
    damaged: list[int] = []
    assert [crawled.record for crawled in read_pages(path, damaged.append)] == ["0", "1", "2"]
    assert damaged == [sum(len(record(number)) for number in range(3))]
