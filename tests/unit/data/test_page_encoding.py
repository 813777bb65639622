"""Generated pages in many encodings, declared in every way, are decoded to their text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bart_cli.data.download.page_encoding import decode
from tests.charsets import LETTERS

# Labels in the spelling of pages, each with Python's codec and text that it can write. What can be
# read as a declaration is not UTF-16.
MORE = {
    "windows-1250": ("cp1250", "łęążšč"),
    "windows-1256": ("cp1256", "مرحبا"),
    "UTF-8": ("utf-8", "aé—你ш"),
    "Shift_JIS": ("cp932", "日本語かな"),
}
ENCODINGS = [
    (label, *rest) for label, rest in (LETTERS | MORE).items() if not label.startswith("utf-16")
]
MULTIBYTE = [row for row in ENCODINGS if not row[1].startswith(("cp12", "iso", "koi"))]
PLACES = {
    "header": ("text/html; charset={}", ""),
    "quoted header": ('Text/HTML;Charset="{}"', ""),
    "meta": ("text/html", '<meta charset="{}">'),
    "old meta": ("", "<META content='text/html; charset={}' HTTP-EQUIV=Content-Type>"),
    "header beside another meta": ("text/html; charset={}", "<meta charset=ibm866>"),
    "meta after a comment": ("", "<!-- <meta charset=ibm866> --><meta charset={}>"),
}


@given(st.data(), st.sampled_from(ENCODINGS), st.sampled_from(sorted(PLACES)))
def test_declared_pages(data: st.DataObject, encoding: tuple[str, str, str], place: str) -> None:
    label, codec, letters = encoding
    header, head = (part.format(label) for part in PLACES[place])
    text = data.draw(st.text(f"{letters} xyz.,", max_size=40))
    page = f"<html><head>{head}</head><body><p>{text}</p></body></html>"
    assert decode(page.encode(codec), header) == page


@given(st.sampled_from(MULTIBYTE), st.text("xyz ", min_size=1))
def test_an_invalid_byte_changes_nothing_else(encoding: tuple[str, str, str], before: str) -> None:
    label, codec, letters = encoding
    page = f"{before}{letters}".encode(codec) + b"\xff " + letters.encode(codec)
    assert decode(page, f"text/html; charset={label}") == f"{before}{letters}\ufffd {letters}"


UNDECLARED = [
    ("iso2022_jp", "市長は月曜日に新しい橋を開通させた。"),
    ("cp1250", "Starosta otevřel nový most. Příliš žluťoučký kůň úpěl ďábelské ódy."),
    ("iso8859-16", "Primarul a deschis podul. Țara și orașul, după două săptămâni."),
    ("cp1253", "Ο δήμαρχος άνοιξε τη νέα γέφυρα τη Δευτέρα. Κόστισε τρία εκατομμύρια. " * 5),
    ("euc_kr", "글렌포드 시장은 월요일에 새 다리를 개통했다."),
    ("utf-16be", "市長一月一開橋"),
]


@pytest.mark.parametrize(("codec", "text"), UNDECLARED)
def test_undeclared_pages(codec: str, text: str) -> None:
    page = f"<!DOCTYPE html><p>{text}</p>"
    assert decode(page.encode(codec)) == page
    # A server that declares UTF-16 knows neither the byte order nor whether it is true.
    assert decode(page.encode(codec), "text/html; charset=utf-16") == page
    if codec in ("cp1253", "euc_kr"):
        assert decode(page.encode(codec) + b"\xff") == page + "\ufffd"


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_wins(codec: str) -> None:
    assert decode("<p>für Ω</p>".encode(codec), "text/html; charset=koi8-r") == "<p>für Ω</p>"
