"""Pages: their encoding, their lead, their date, and the fallback of the default extractor."""

from __future__ import annotations

import json
from datetime import date

import pytest

from bart_cli.data.download.extractors import Page, load_extractor, publishing_date
from bart_cli.data.download.page_encoding import decode

LEAD = "The mayor of Glenford opened the new bridge across the river on Monday morning."
REST = "The bridge cost eighteen million, of which the region paid two thirds, and it is long. "


def page(body: str, head: str = "", url: str = "https://a.example/x") -> Page:
    html = f"<html><head>{head}</head><body><article><h1>Bridge</h1>{body}</article></body></html>"
    return Page(url, html.encode())


def test_an_invalid_byte_affects_only_itself() -> None:
    html = "<meta charset=utf-8><p>“We won’t close the café”</p>".encode()
    text = decode(html.replace(b"<p>", b"<p>\x92"))
    assert text == "<meta charset=utf-8><p>\ufffd“We won’t close the café”</p>"
    undeclared = html.replace(b"charset=utf-8", b"").replace(b"<p>", b"<p>\x92")
    assert "\ufffd“We won’t close the café”" in decode(undeclared * 20)


@pytest.mark.parametrize(
    ("html", "header", "text"),
    [
        (b"\xef\xbb\xbf<p>\xc3\xa9", "text/html; charset=koi8-r", "<p>é"),
        (b"<meta charset=koi8-r><p>\xc3\xa9", "text/html; charset=utf-8", "é"),
        (b"<meta charset=utf-16><p>\xc3\xa9", "", "é"),
        (b"<meta charset=x-user-defined><p>\xe9", "", "é"),
        (
            b"<!-- <meta charset=koi8-r> --><meta charset=no><meta charset=latin1>\x80",
            "",
            "€",
        ),
        (b"<meta content='charset=koi8-r'><meta charset=utf-8><p>\xc3\xa9", "", "é"),
        (b"<?xml version='1.0' encoding='windows-1251'?><p>\xec\xee\xf1\xf2", "", "мост"),
        (b"<meta charset=windows-1252><p>\x93hi\x94", "text/html; charset=bogus", "“hi”"),
        (b"<meta charset=gb2312><p>\x80\x30 \xe9F", "", "镕"),
    ],
)
def test_declarations_in_a_browsers_order(html: bytes, header: str, text: str) -> None:
    assert text in decode(html, header)


@pytest.mark.parametrize("extractor", ["trafilatura", "resiliparse"])
@pytest.mark.parametrize(
    "name",
    ["teaser-content", "teaser", "lead", "standfirst", "intro", "summary", "dek", "abstract"],
)
def test_the_lead_paragraph_is_kept(extractor: str, name: str) -> None:
    extract = load_extractor(extractor)  # type: ignore[arg-type]
    for lead in (
        f"<div class='{name}'><p>{LEAD}</p></div>",
        f"<p id='{name}'>{LEAD}</p>",
        f"<header><h1>Bridge</h1><p class='{name}'>{LEAD}</p></header>",
        f"<div class='{name}'>{LEAD.replace('Monday', '<b>Monday</b>')}</div>",
    ):
        assert LEAD in extract(page(lead + f"<p>{REST * 3}</p>" * 3))


BODY = f"<p>{REST * 3}</p>" * 3
STRUCTURES = [
    f"<article><header><h1>Bridge</h1><h2 class=subtitle>{LEAD}</h2></header>{BODY}</article>",
    f"<header><h1>Bridge</h1><p class=intro>{LEAD}</p></header><article>{BODY}</article>",
    f"<article><div class=a__intro><p>{LEAD}</p></div><div class=a__body>{BODY}</div></article>",
    f"<main><div><h1>B</h1><div class=dek>{LEAD}</div></div><div class=body>{BODY}</div></main>",
    f"<article><h1>B</h1><div class=sommaire><em>{LEAD}</em></div>{BODY}</article>",
    f"<article><h1>B</h1><p class=lead>{LEAD}</p><div class=article-body>{BODY}</div></article>",
    f"<h1>B</h1><p class=excerpt>{LEAD}</p><div class=article-body><h1>More</h1>{BODY}</div>",
    f"<table><tr><td><a href=/>Home</a></td><td>{LEAD}<br><br>{BODY}</td></tr></table>",
]


@pytest.mark.parametrize("body", STRUCTURES)
def test_the_lead_is_kept_outside_the_body(body: str) -> None:
    text = load_extractor("trafilatura")(Page("", f"<html><body>{body}</body></html>".encode()))
    assert text.count(LEAD) == 1
    assert text.index(LEAD) < text.index(REST.strip())


def test_a_summary_before_the_headline_is_no_lead() -> None:
    menu = "<div class=summary>Our weather page has the forecast of every town in the region.</div>"
    html = f"<html><body>{menu}{STRUCTURES[5]}</body></html>"
    text = load_extractor("trafilatura")(Page("", html.encode()))
    assert text.startswith(LEAD)
    assert "forecast" not in text


def test_soft_hyphens_are_not_text() -> None:
    body = BODY.replace("bridge", "brid\xadge").replace("region", "re\u200bgion")
    assert REST.strip() in load_extractor("resiliparse")(page(body))


def test_teasers_of_other_articles_are_dropped() -> None:
    cards = "".join(
        f"<div class='teaser'><p>Other news number {i} <a href='/{i}'>that we would like you to "
        "read on another page of ours</a></p></div>"
        for i in range(3)
    )
    body = "".join(f"<p>{i} {REST * 3}</p>" for i in range(3))
    assert "Other news" not in load_extractor("trafilatura")(page(body + cards))


@pytest.mark.parametrize("form", ["{}", "<!--\n{}\n-->", "\n//<![CDATA[\n{}\n//]]>\n", "[{},]"])
def test_an_article_missed_by_trafilatura_is_taken_from_json_ld(form: str) -> None:
    body = " ".join(f"Sentence number {i} tells of the bridge &amp; the river." for i in range(40))
    data = json.dumps({"@graph": [{"@type": "NewsArticle", "articleBody": body}]})
    script = form.format(data)
    found = load_extractor("trafilatura")(
        page(f"<p>{LEAD}</p>", f"<script type='application/ld+json'>{script}</script>")
    )
    assert "Sentence number 39 tells of the bridge & the river." in found


JSON_DATE = '<script type="application/ld+json">[{"datePublished": %s}]</script>'
DATES = [
    ({"url": "https://a.example/20160914/x"}, ""),
    ({"url": "https://a.example/2016/sep/14/x"}, ""),
    ({"url": "https://a.example/2016/09/14/x"}, ""),
    ({"head": JSON_DATE % "1473811200"}, ""),
    ({"head": JSON_DATE % '"1473811200000"'}, ""),
    ({}, "<p>Updated 20 September 2016 | Published 14 September 2016</p>"),
    ({}, "<div>Updated: Sept 20, 2016 | Published: Sept 14, 2016</div>"),
]


@pytest.mark.parametrize(("place", "line"), DATES, ids=str)
def test_publishing_dates(place: dict[str, str], line: str) -> None:
    assert publishing_date(page(f"<p>{REST * 3}</p>{line}", **place)) == date(2016, 9, 14)


@pytest.mark.parametrize("notice", ["© 2016 Example", "&copy; 2015-2016", "Copyright 2016 A"])
def test_the_year_of_a_copyright_is_no_date(notice: str) -> None:
    assert publishing_date(page(f"<p>{REST}</p><footer>{notice}</footer>")) is None


def test_a_date_in_the_body_text_is_not_trusted() -> None:
    text = page(f"<p>{REST}</p><p>The first bridge fell on 3 May 2011 in a storm.</p>")
    assert publishing_date(text, doubtful=False) is None
