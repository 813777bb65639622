"""Extract the article of a news page: its text, publishing date and language.

There are three extractors: trafilatura, the most precise and the default; resiliparse, the fastest;
and news-please, used by the reference. `benchmarks/extractors.py` compares them; the results are in
docs/extractors.md.
"""

from __future__ import annotations

import importlib
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from html import unescape
from typing import Any, Literal
from urllib.parse import urlsplit

from bart_cli.data.download.page_encoding import decode

Extractor = Literal["trafilatura", "resiliparse", "news-please"]

SHORT = 0.5  # minimum length of the precise extraction, relative to the longest of the others
SHORTEST_LEAD = 60  # characters
SHORTEST_TEXT = 250  # characters in paragraphs above which trafilatura reads only paragraphs
INLINE = frozenset("a abbr b em i mark q small span strong sub sup".split())
LEAD = re.compile(
    r"[tT]easer|<td\b[^>]*>\s*[^<\s][^<]{40}"
    r"|<(?:article|main)\b.*?<(?:header\b|div\b[^>]*>\s*[^<\s][^<]{40})",
    re.DOTALL,
)
NAMED_LEAD = re.compile(
    r"(?<![a-z])(?:(?:lead|intro)(?:text)?|lede|introduction|standfirst|teaser|chapo|chapeau|vorspann|"
    r"ingress|preamble|sommaire|sumario|entradilla|copete|bajada|perex|summary|abstract|excerpt|dek|"
    r"deck|subtitle|subheadline)(?![a-z])",
    re.IGNORECASE,
)
# Soft hyphens and other characters of no width that only guide the breaking of lines.
INVISIBLE = re.compile("[\u00ad\u200b\u2060\ufeff]+")
JSON_LD = re.compile(
    r"<script\b[^>]*application/ld\+json[^>]*>(.*?)</script", re.IGNORECASE | re.DOTALL
)
COMMENT_MARKS = re.compile(r"^\s*(?://\s*)?<!(?:\[CDATA\[|--)|(?://\s*)?(?:\]\]|--)>\s*$")
TRAILING_COMMA = re.compile(r",(?=\s*[}\]])")
FIRST_YEAR, LAST_YEAR = 1990, 2100  # range in which a number counts as a Unix timestamp
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
URL_DATES = (
    re.compile(r"/((?:19|20)\d\d)[/-](\d\d?)[/-](\d\d?)(?=\D|$)"),
    re.compile(rf"/((?:19|20)\d\d)[/-]((?:{'|'.join(MONTHS)})[a-z]*)[/-](\d\d?)(?=\D|$)"),
    re.compile(r"(?<!\d)((?:19|20)\d\d)(\d\d)(\d\d)(?!\d)"),
)
PUBLISHED = re.compile(r"\b(?:first )?published\b(?: on| at)?[\s:]*([^|<\n]{6,40})", re.IGNORECASE)
COPYRIGHT = re.compile(r"(?:©|&copy;|\(c\)|copyright)[^<]{0,80}", re.IGNORECASE)


@dataclass(frozen=True)
class Page:
    """A crawled page."""

    url: str
    html: bytes
    content_type: str = ""  # the HTTP header
    record: str = ""  # id of its WARC record

    @cached_property
    def text(self) -> str:
        """The HTML, decoded as by a browser."""
        return decode(self.html, self.content_type)


def load_extractor(name: Extractor) -> Callable[[Page], str]:
    """Return a function that extracts the article text of a page ('' if there is none)."""
    # Parsers log warnings about many of the pages in a crawl.
    for logger in ("trafilatura", "newspaper", "readability", "newsplease", "htmldate"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    # Import now, so that an incomplete installation fails before the first page.
    module, function = EXTRACTORS[name]
    importlib.import_module(module)
    return function


def publishing_date(page: Page, *, doubtful: bool = True) -> date | None:
    """Find the day on which an article was first published, or None.

    Sources are the page's metadata (JSON-LD, `<meta>`, `<time>`), its URL, lines such as "Updated
    2 May | Published 1 May" and, if `doubtful`, as a last resort a date in the running text (but
    never the year of a copyright notice).
    """
    html = page.text
    return _date_of_json(html) or _date_of_url(page.url) or _date_of_page(page, html, doubtful)


def _date_of_json(html: str) -> date | None:
    for node in _json_ld(html):
        value = node.get("datePublished")
        if isinstance(value, str) and (found := re.match(r"\s*(\d{4})-(\d\d)-(\d\d)", value)):
            return _day(*found.groups())
        if isinstance(value, int | float) or (isinstance(value, str) and value.strip().isdigit()):
            seconds = float(value)
            seconds /= 1000 if seconds > 1e11 else 1  # milliseconds since 1973 exceed this
            if FIRST_YEAR <= 1970 + seconds / 31_556_952 < LAST_YEAR:
                return datetime.fromtimestamp(seconds, UTC).date()
    return None


def _date_of_url(url: str) -> date | None:
    """Find a date in the path: `/2016/09/14/`, `/2016-09-14-`, `/20160914/`, `/2016/sep/14/`."""
    path = urlsplit(url).path.lower()
    for pattern in URL_DATES:
        if found := pattern.search(path):
            year, month, day = found.groups()
            number = str(MONTHS.index(month[:3]) + 1) if month[:3] in MONTHS else month
            if day := _day(year, number, day):
                return day
    return None


def _date_of_page(page: Page, html: str, doubtful: bool) -> date | None:
    from htmldate import find_date

    def find(text: str, extensive: bool) -> date | None:
        try:
            found = find_date(text, url=page.url, original_date=True, extensive_search=extensive)
        except (ValueError, AttributeError, TypeError):
            return None  # htmldate cannot parse the page
        return None if found is None else date.fromisoformat(found)

    if line := PUBLISHED.search(re.sub(r"<[^>]*>", " ", html)):
        stated = find(f"<html><body><p>{line[1]}</p></body></html>", True)
        if stated is not None:
            return stated
    certain = find(html, False)
    if certain is not None or not doubtful:
        return certain
    return find(COPYRIGHT.sub(" ", html), True)


def _day(year: str, month: str, day: str) -> date | None:
    try:
        return date(int(year), int(month), int(day))
    except ValueError:
        return None


def _json_ld(html: str) -> Iterator[dict[str, Any]]:
    """Yield every object in the page's JSON-LD blocks, skipping blocks that are invalid."""
    for block in JSON_LD.findall(html):
        try:
            bare = COMMENT_MARKS.sub("", block)
            nodes = [json.loads(TRAILING_COMMA.sub("", bare), strict=False)]
        except (ValueError, RecursionError):
            continue
        while nodes:
            node = nodes.pop()
            if isinstance(node, dict):
                yield node
            nodes += (
                node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
            )


def language(page: Page) -> str:
    """Detect the language of the page's main text, as an ISO 639-1 code."""
    from resiliparse.parse.lang import detect_fast

    code: str = detect_fast(_resiliparse(page))[0]
    return code


def metadata(page: Page) -> dict[str, str | None]:
    """Return title, author, publishing date (ISO 8601) and URL of an article; None if unknown."""
    import trafilatura

    found = trafilatura.extract_metadata(page.text, default_url=page.url)
    day = publishing_date(page)
    return {
        "title": found.title if found else None,
        "author": found.author if found else None,
        "date": day.isoformat() if day else None,
        "url": page.url,
    }


def keep_lead(html: str) -> str:
    """Modify `html` so that extractors keep the lead paragraph.

    trafilatura drops every element named teaser, as a link to another article. Such links come in
    groups, whereas a lead occurs once and is mostly text: remove its class and id. trafilatura also
    drops every `<header>`: turn one inside the article that contains a lead into a `<div>`. If
    there are paragraphs, trafilatura reads nothing else: wrap a lead that is bare text in a `<div>`
    in a paragraph. (All extractors keep leads with other common names, such as standfirst, intro,
    summary and dek.)
    """
    if not LEAD.search(html):
        return html
    from lxml.html import tostring

    tree = _parsed(html)
    if tree is None:
        return html
    for article in tree.iter("article", "main", "td"):
        if sum(len(p.text_content()) for p in article.iter("p")) >= SHORTEST_TEXT:
            _wrap_lead(article)
    for node in list(tree.iter("header")):
        if next(node.iterancestors("article", "main"), None) is not None:
            leads = (" ".join(p.text_content().split()) for p in node.iter("p"))
            if any(len(lead) >= SHORTEST_LEAD for lead in leads):
                node.tag = "div"
    named = [
        node
        for node in tree.iter("*")
        if "teaser" in f"{node.get('class', '')} {node.get('id', '')}".lower()
    ]
    names = Counter(node.get("class") for node in named)
    for node in named:
        alone = node.get("class") is None or names[node.get("class")] == 1
        if alone and _is_text(node):
            node.attrib.pop("class", None)
            node.attrib.pop("id", None)
    return tostring(tree, encoding="unicode", doctype="<!DOCTYPE html>")


def _parsed(html: str) -> Any:
    """The tree of a page, or None."""
    from lxml import etree
    from lxml.html import HTMLParser, document_fromstring

    try:
        # Parse bytes: lxml rejects a str with an XML encoding declaration.
        parser = HTMLParser(encoding="utf-8")
        return document_fromstring(html.encode("utf-8", "replace"), parser=parser)
    except (etree.ParserError, ValueError):
        return None


def _is_text(node: Any) -> bool:
    """Whether an element has enough text for a lead, and mostly outside links."""
    size = len(_words(node))
    return size >= SHORTEST_LEAD and sum(len(_words(link)) for link in node.iter("a")) < size / 3


def _words(node: Any) -> str:
    return " ".join(node.text_content().split())


def _with_lead(text: str, html: str) -> str:
    """Add the leads that an extractor dropped, since they precede the element of the body.

    These are elements named like a lead, between the headline (without one, the beginning of the
    article) and the first paragraph of `text`.
    """
    from lxml.etree import strip_elements

    title, *rest = text.split("\n")
    first = next((line for line in [title, *rest] if len(line) >= SHORTEST_LEAD), "")
    if not first or (tree := _parsed(html)) is None:
        return text
    begin, found = " ".join(first.split())[:SHORTEST_LEAD], " ".join(text.split())
    strip_elements(tree, "script", "style", "figure", with_tail=False)
    start = ("article", "main") if tree.find(".//h1") is None else ("h1",)
    page_title = " ".join((tree.findtext(".//title") or "").split())
    leads: list[str] | None = None
    for node in tree.iter(*start, "div", "p", "h2", "h3", "section", "span"):
        words = INVISIBLE.sub("", _words(node))
        names = f"{node.get('class')} {node.get('id')}"
        if node.tag in start:  # other headlines may follow
            leads = leads if leads and words not in page_title else []
        elif words.startswith(begin):
            break
        elif leads is not None and NAMED_LEAD.search(names) and _is_text(node):
            known = " ".join([found, *leads])
            leads += [words] * (words not in known and begin not in words)
    else:
        return text
    leads = leads or []
    if len(title) < SHORTEST_LEAD and title.rstrip()[-1:].isalnum():
        return "\n".join([title, *leads, *rest])
    return "\n".join([*leads, text])


def _wrap_lead(article: Any) -> None:
    """Wrap the first long text in `article` in a paragraph if it is bare text of its element."""
    for node in article.iter("p", "div", "td"):
        if len(" ".join((node.text or "").split())) < SHORTEST_LEAD:
            continue
        if node.tag != "p":
            lead = node.makeelement("p")
            lead.text, node.text = node.text, None
            for child in list(node):
                if child.tag not in INLINE:
                    break
                lead.append(child)  # moves the text after it, too
            node.insert(0, lead)
        return


def _trafilatura(page: Page) -> str:
    """Extract precisely, unless the result is less than half as long as other extractions.

    A precise extractor loses the article if it selects the wrong element. In this case, use the
    first that is long enough: the publisher's `articleBody`, trafilatura's tolerant extraction, or
    resiliparse's.
    """
    import trafilatura

    def extract(precise: bool) -> str:
        text = trafilatura.extract(
            html,
            url=page.url,
            fast=True,
            favor_precision=precise,
            include_comments=False,
            include_tables=False,
        )
        return text or ""

    html = keep_lead(page.text)
    exact, plain, body = extract(True), _resiliparse(page), _article_body(page.text)
    enough = max(len(plain), len(body)) * SHORT
    text = exact if len(exact) >= enough else body
    if len(text) < enough:
        text = extract(False)
    return _with_lead(text if len(text) >= enough else plain, page.text)


def _article_body(html: str) -> str:
    """The longest `articleBody` in the page's JSON-LD, as text."""
    bodies = (node.get("articleBody") for node in _json_ld(html))
    body = max((text for text in bodies if isinstance(text, str)), key=len, default="")
    return INVISIBLE.sub("", unescape(re.sub(r"<[^>]*>", " ", unescape(body))))


def _resiliparse(page: Page) -> str:
    from resiliparse.extract.html2text import extract_plain_text

    text: str = extract_plain_text(
        page.text, main_content=True, alt_texts=False, links=False, comments=False
    )
    return INVISIBLE.sub("", text)


def _news_please(page: Page) -> str:
    from newsplease import NewsPlease

    return NewsPlease.from_html(keep_lead(page.text), url=page.url).maintext or ""


EXTRACTORS: dict[Extractor, tuple[str, Callable[[Page], str]]] = {
    "trafilatura": ("trafilatura", _trafilatura),
    "resiliparse": ("resiliparse.extract.html2text", _resiliparse),
    "news-please": ("newsplease", _news_please),
}
