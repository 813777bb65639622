"""Write the layout of CC-NEWS to be served: a listing per month and real WARC files."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SENTENCE = "The council of {place} voted on {day} to repair the old bridge over the river Alda. "


@dataclass(frozen=True)
class News:
    """A page of the crawl and the response of its server."""

    url: str
    html: bytes
    status: int = 200
    content_type: str = "text/html; charset=utf-8"


def news_page(place: str, day: str, *, language: str = "en", dated: bool = True) -> News:
    """Build a page with navigation, an article of three paragraphs, and a footer."""
    text = {
        "en": SENTENCE * 5,
        "de": "Der Rat von {place} beschloss am {day}, die alte Brücke über den Fluss zu "
        "erneuern, weil sie seit Jahren nicht mehr sicher ist. " * 5,
    }[language].format(place=place, day=day)
    meta = f'<meta property="article:published_time" content="{day}T08:00:00Z">' if dated else ""
    html = f"""<!doctype html><html lang="{language}"><head><title>{place}</title>{meta}</head>
<body><nav><a href="/">Home</a> <a href="/sport">Sport</a></nav><article><h1>{place}</h1>
{f"<p>{text}</p>" * 3}</article><footer>Imprint and terms of use</footer></body></html>"""
    if not dated:
        html = html.replace(day, "a day")
    return News(f"https://www.{place.lower()}.example/news/{place.lower()}", html.encode())


def write_warc(path: Path, pages: Sequence[News]) -> list[int]:
    """Write pages as gzipped WARC records, with request records; return their offsets."""
    path.parent.mkdir(parents=True, exist_ok=True)
    positions = []
    with path.open("wb") as stream:
        for number, page in enumerate(pages):
            asked = f"GET {page.url} HTTP/1.1\r\n\r\n".encode()
            head = f"HTTP/1.1 {page.status} X\r\nContent-Type: {page.content_type}\r\n\r\n"
            stream.write(_record("request", page.url, f"{number:011d}0", asked))
            positions.append(stream.tell())
            body = head.encode() + page.html
            stream.write(_record("response", page.url, f"{number:011d}1", body))
    return positions


def _record(kind: str, url: str, identity: str, block: bytes) -> bytes:
    header = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\n"
        f"WARC-Record-ID: <urn:uuid:00000000-0000-4000-8000-{identity}>\r\n"
        f"WARC-Date: 2016-09-26T21:18:09Z\r\n"
        f"Content-Type: application/http; msgtype={kind}\r\n"
        f"Content-Length: {len(block)}\r\n\r\n"
    )
    return gzip.compress(header.encode() + block + b"\r\n\r\n", mtime=0)


def write_listing(root: Path, month: str, names: Sequence[str]) -> list[str]:
    """Write `warc.paths.gz` of a month ('2016/09') with the paths of its files in `root`."""
    paths = [f"crawl-data/CC-NEWS/{month}/{name}" for name in names]
    listing = root / f"crawl-data/CC-NEWS/{month}/warc.paths.gz"
    listing.parent.mkdir(parents=True, exist_ok=True)
    listing.write_bytes(gzip.compress("\n".join(paths).encode(), mtime=0))
    return paths
