"""Generated pages in many encodings, declared in every place: the text is what was written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bart_cli.data.download.page_encoding import decode

# The label in a page, Python's codec for it, and letters that it can write.
ENCODINGS = [
    ("UTF-8", "utf-8", "aé—你ш"),
    ("iso-8859-1", "cp1252", "äöüßéñ€“"),  # browsers read this label as windows-1252
    ("windows-1250", "cp1250", "łęążšč"),
    ("Windows-1251", "cp1251", "привет"),
    ("koi8-r", "koi8-r", "привет"),
    ("windows-1253", "cp1253", "λόγος"),
    ("windows-1256", "cp1256", "مرحبا"),
    ("Shift_JIS", "cp932", "日本語かな"),
    ("euc-jp", "euc-jp", "日本語かな"),
    ("gb2312", "gb18030", "你好世界"),
    ("big5", "big5", "你好世界"),
    ("euc-kr", "cp949", "안녕하세요"),
]
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


@given(st.sampled_from(ENCODINGS[:1] + ENCODINGS[7:]), st.text("xyz ", min_size=1))
def test_an_invalid_byte_changes_nothing_else(encoding: tuple[str, str, str], before: str) -> None:
    label, codec, letters = encoding
    page = f"{before}{letters}".encode(codec) + b"\xff " + letters.encode(codec)
    assert decode(page, f"text/html; charset={label}") == f"{before}{letters}\ufffd {letters}"


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_wins(codec: str) -> None:
    assert decode("<p>für Ω</p>".encode(codec), "text/html; charset=koi8-r") == "<p>für Ω</p>"
