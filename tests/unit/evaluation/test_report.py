"""The report is complete, escaped, and needs no network."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bart_cli.config.run import EvaluateConfig
from bart_cli.data.pairs import Pair
from bart_cli.evaluation.ledger import Decoded, DecodedBatch, Ledger, Origin
from bart_cli.evaluation.report import mark_shared, write_report
from bart_cli.evaluation.scoring import decoding_settings, score
from bart_cli.figures import HEIGHT, WIDTH, histogram
from bart_cli.progress import Reporter

HOSTILE = """<script src="http://evil/x.js">alert(1)</script> & "quotes' <img src=//evil/y.png>
{{ 7 * 7 }} \x00 \ud800 \u202e لعربية </style></title><!-- 🚀"""


class Page(HTMLParser):
    """Collects tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(text: str, tmp_path: Path, articles: int = 12, **evaluation: object) -> Page:
    pairs = [Pair(f"{text} {i}", f"{text} article", f"{text} reference") for i in range(articles)]
    config = EvaluateConfig.model_validate(
        {"model_path": text.replace("\ud800", ""), "evaluation": {"bootstrap": 20} | evaluation}
    )
    ledger = Ledger(tmp_path / "progress.jsonl", Origin("m", "p", {}))
    ledger.begin(articles, 1)
    rows = [Decoded(i, [f"{text} prediction {i}"], [-1.0]) for i in range(articles)]
    ledger.append([DecodedBatch(0, 0.5, rows)], 1.0, text)
    origin, decoded = decoding_settings(config, ledger), ledger.in_order()
    result = score(config, pairs, decoded, origin, Reporter(), ledger=ledger)
    write_report(result, pairs, tmp_path / "report.html")
    return Page((tmp_path / "report.html").read_text(encoding="utf-8"))


def test_hostile_text_stays_text_and_nothing_is_fetched(tmp_path: Path) -> None:
    page = page_of(HOSTILE, tmp_path, bleu=True)
    assert not {"script", "img", "link", "iframe", "object", "embed", "base"} & set(page.tags)
    assert page.tags.count("style") == page.tags.count("body") == 1
    names = {name for name, _ in page.attributes}
    assert not names & {"src", "href", "srcset", "xlink:href", "data", "action", "background"}
    assert not any(name.startswith("on") for name in names)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert style
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    assert "default-src 'none'" in html
    assert "{{ 7 * 7 }}" in page.text
    assert '<script src="http://evil/x.js">alert(1)</script> & "quotes\'' in page.text


def test_the_report_has_all_documented_parts(tmp_path: Path) -> None:
    page = page_of("Plain words", tmp_path, articles=20)
    for heading in ("Comparison with baselines", "Lengths", "Speed", "Best", "Worst", "Settings"):
        assert heading in page.text
    for name in ("ROUGE-1", "ROUGE-Lsum", "lead-3", "p99", "generation.beams"):
        assert name in page.text
    assert page.tags.count("article") == 15
    assert page.tags.count("svg") == 4 + 2 + 3


@pytest.mark.parametrize("articles", [1, 2, 7])
def test_a_report_of_a_few_articles_is_valid(tmp_path: Path, articles: int) -> None:
    assert page_of("Words", tmp_path, articles, bootstrap=0).tags.count("article") == articles


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=50))
def test_a_histogram_counts_every_value_within_its_range(values: list[int]) -> None:
    plot = histogram("x", "", values)
    bars = plot["bars"]
    assert sum(int(bar["label"].rsplit(": ")[1].replace(",", "")) for bar in bars) == len(values)
    assert all(bar["x"] + bar["width"] <= WIDTH for bar in bars)
    assert all(bar["y"] + bar["height"] <= HEIGHT for bar in bars)
    assert 0 <= plot["median_x"] <= WIDTH


@given(st.text(), st.text(), st.booleans())
def test_marking_does_not_change_the_text(prediction: str, reference: str, stemmer: bool) -> None:
    pieces = mark_shared(prediction, reference, stemmer=stemmer)
    assert "".join(piece.text for piece in pieces) == prediction


def test_bigrams_are_marked_as_rouge_counts_them() -> None:
    pieces = mark_shared("A dog chases, cats run", "the dogs chased cats", stemmer=True)
    assert [(piece.text, piece.shared) for piece in pieces] == [
        ("A ", False),
        ("dog chases, cats", True),
        (" run", False),
    ]
