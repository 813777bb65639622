"""The article in a news page: its text, the day it was published, its language.

Three extractors, measured in `benchmarks/extractors.py` (the table is in docs/extractors.md):
trafilatura, the most exact and the default; resiliparse, the fastest; news-please, the reference's.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Literal

from bart_cli.errors import UsageError

Extractor = Literal["trafilatura", "resiliparse", "news-please"]

MODULES: dict[Extractor, str] = {
    "trafilatura": "trafilatura",
    "resiliparse": "resiliparse.extract.html2text",
    "news-please": "newsplease",
}


@dataclass(frozen=True)
class Page:
    """A page as it was crawled."""

    url: str
    html: bytes


def load_extractor(name: Extractor) -> Callable[[Page], str]:
    """A function from a page to the text of its article ('' when it has none).

    Raises:
        UsageError: the extractor is not installed.
    """
    if name == "news-please" and importlib.util.find_spec("newsplease") is None:
        raise UsageError(
            "the extractor news-please is not installed",
            hint="pip install 'bart-cli[news]', or leave --extractor at trafilatura",
        )
    # A crawl is full of pages that parsers complain about.
    for logger in ("trafilatura", "newspaper", "readability", "newsplease", "htmldate"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    # Here, so that an installation that is not whole fails before the first page, and says so.
    importlib.import_module(MODULES[name])
    return {
        "trafilatura": _trafilatura,
        "resiliparse": _resiliparse,
        "news-please": _news_please,
    }[name]


def publishing_date(page: Page) -> date | None:
    """The day an article was first published, from the page's metadata, address or text."""
    from htmldate import find_date

    try:
        found = find_date(decode(page.html), url=page.url, original_date=True)
    except (ValueError, AttributeError, TypeError):
        return None  # htmldate on a page without a tree
    return None if found is None else date.fromisoformat(found)


def language(page: Page) -> str:
    """Code (ISO 639-1) of the language that the page's main text is most like."""
    from resiliparse.parse.lang import detect_fast

    code: str = detect_fast(_resiliparse(page))[0]
    return code


def decode(html: bytes) -> str:
    """A page's text in the encoding that its bytes tell of."""
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    text: str = bytes_to_str(html, detect_encoding(html) or "utf-8")
    return text


def _trafilatura(page: Page) -> str:
    import trafilatura

    text = trafilatura.extract(
        decode(page.html),
        url=page.url,
        fast=True,
        favor_precision=True,
        include_comments=False,
        include_tables=False,
    )
    return text or ""


def _resiliparse(page: Page) -> str:
    from resiliparse.extract.html2text import extract_plain_text

    text: str = extract_plain_text(
        decode(page.html), main_content=True, alt_texts=False, links=False, comments=False
    )
    return text


def _news_please(page: Page) -> str:
    from newsplease import NewsPlease

    return NewsPlease.from_html(decode(page.html), url=page.url).maintext or ""
