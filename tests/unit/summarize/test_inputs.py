"""Inputs of `bart summarize` become texts, or failures with a reason."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import re
import shlex
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import pytest

from bart_cli.errors import BartError, UsageError
from bart_cli.summarize import records
from bart_cli.summarize.inputs import find_inputs, read_items
from bart_cli.summarize.records import Failure, Origin, Text, read_records
from bart_cli.summarize.windows import windows
from tests.servers.web import serve_files

PAGE = """<html><head><title>News</title></head><body><nav><a href="/">Home page</a></nav>
<article><h1>Bridge</h1><p>The mayor opened the new bridge on Monday. Heavy rain had closed the
old one in 1998, and people had waited for ten long years.</p><p>Business rose at once, owners of
cafés said on Tuesday.</p></article><footer>All rights reserved</footer></body></html>"""


def texts(words: list[str], **options: str) -> list[str]:
    items = list(read_items(find_inputs(words), **options))
    assert all(isinstance(item, Text) for item in items), items
    return [item.text for item in items if isinstance(item, Text)]


def test_files_folders_and_patterns_are_read_in_order(tmp_path: Path) -> None:
    for name in ("b.txt", "a.md", "c.log", "below/d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"text of {name}")
    os.mkfifo(tmp_path / "e.txt")  # reading it would wait for a writer
    assert texts([str(tmp_path / "c.log"), str(tmp_path)]) == [
        "text of c.log",
        "text of a.md",
        "text of b.txt",
    ]
    assert texts([f"{tmp_path}/?.[lt]*"]) == ["text of b.txt", "text of c.log"]
    assert texts([f"{tmp_path}/**/*.txt"]) == ["text of b.txt", "text of below/d.txt"]


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "a[1].txt").write_text("one")
    assert texts([str(tmp_path / "a[1].txt")]) == ["one"]


@pytest.mark.parametrize("jsonl", [False, True])
def test_a_pipe_is_read_once(tmp_path: Path, jsonl: bool) -> None:
    os.mkfifo(tmp_path / "pipe")
    content = '{"text": "one"}\n{"text": "two"}\n'
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=[content])
    writer.start()
    items = list(read_items(find_inputs([str(tmp_path / "pipe")], jsonl=jsonl)))
    writer.join()
    assert [item.text for item in items if isinstance(item, Text)] == (
        ["one", "two"] if jsonl else [content]
    )


def test_the_main_text_of_a_page_is_extracted(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(PAGE)
    (text,) = texts([str(tmp_path / "page.html")])
    (tmp_path / "page.txt").write_text(f'\ufeff<?xml version="1.0"?>\n<!DOCTYPE html>{PAGE}')
    assert texts([str(tmp_path / "page.txt")]) == [text]  # saved under another name
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "page.html.gz").write_bytes(gzip.compress(PAGE.encode()))
    (tmp_path / "a" / "rows.jsonl.bz2").write_bytes(bz2.compress(b'{"text": "One."}\n'))
    (tmp_path / "a" / "text.txt.xz").write_bytes(lzma.compress(b"Two."))
    assert texts([str(tmp_path / "a")]) == [text, "One.", "Two."]
    assert texts(sorted(map(str, (tmp_path / "a").iterdir()))) == [text, "One.", "Two."]
    assert "The mayor opened the new bridge on Monday." in text
    assert "Home page" not in text
    assert "rights" not in text


def test_a_byte_order_mark_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone")
    (tmp_path / "b.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "two"}\n')
    (tmp_path / "c.jsonl").write_bytes('{"text": "three"}\n{"text": "four"}\n'.encode("utf-16"))
    assert texts([str(tmp_path)]) == ["one", "two", "three", "four"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b" \n", "is empty"),
        (b"a\nb\xe9", "byte 0xe9 in line 2"),
        (b"\x00\x8b\x08\x00\xe9\x00", "is not text: it contains binary data"),
        (b"\xef\xbb\xbfa\nb\xe9", "byte 0xe9 in line 2"),
    ],
)
def test_an_unreadable_named_file_is_refused_before_anything_starts(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "x.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        find_inputs([str(path)])


@pytest.mark.parametrize(
    ("name", "content", "message", "hint"),
    [
        ("a.txt", b"{\\rtf1 x}", "it is an RTF document", "pandoc"),
        ("a.html", b"{\\rtf1 x}", "it is an RTF document", "pandoc"),
        ("a.jsonl", b"\x28\xb5\x2f\xfd", "compressed with zstd", "unzstd < "),
        ("a.csv", b"text,id\na,1\n", "is a CSV table", "csv.DictReader"),
        ("a.TSV", b"text\tid\na\t1\n", "is a TSV table", r"delimiter='\t'"),
        ("a.json", b'[{"text": "a"}]', "is JSON", "jq -c"),
    ],
)
def test_files_that_are_not_plain_text_are_reported_with_a_hint(
    tmp_path: Path, name: str, content: bytes, message: str, hint: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        find_inputs([str(tmp_path / name)])
    assert caught.value.hint is not None
    assert hint in caught.value.hint
    pattern = f"{tmp_path}/*"
    assert [isinstance(i, Failure) for i in read_items(find_inputs([pattern]))] == [True]


@pytest.mark.parametrize(("name", "separator"), [("a.csv", ","), ("b.TSV.gz", "\t")])
def test_the_hint_for_a_table_converts_it_without_further_packages(
    tmp_path: Path, name: str, separator: str
) -> None:
    table = f'\ufeffid{separator}text\n1{separator}"Größe, ""ja""\nZeile 2"\n'.encode()
    (tmp_path / name).write_bytes(gzip.compress(table) if name.endswith("gz") else table)
    with pytest.raises(UsageError) as caught:
        find_inputs([str(tmp_path / name)])
    (words,) = re.findall(r'python (-c ".*") >', str(caught.value.hint))
    python = [sys.executable, "-I", "-S", *shlex.split(words)]  # without installed packages
    printed = subprocess.run(python, capture_output=True, check=True).stdout
    assert json.loads(printed) == {"id": "1", "text": 'Größe, "ja"\nZeile 2'}


def test_documents_are_read_and_the_rest_of_a_folder_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")
    from tests.cli.test_serve import docx, pdf

    (tmp_path / "a.docx").write_bytes(docx("One.", "Two."))
    (tmp_path / "b.pdf").write_bytes(pdf("Three."))
    (tmp_path / "b.html").write_bytes(pdf("Four."))  # its content counts, not its suffix
    (tmp_path / "c.pdf").write_bytes(b"%PDF-1.4 broken")
    (tmp_path / "below").mkdir()
    (tmp_path / "notes.log").touch()
    (tmp_path / ".hidden").touch()
    with caplog.at_level("INFO", "bart"):
        word, named_page, portable, broken = read_items(find_inputs([str(tmp_path)]))
    assert isinstance(word, Text)
    assert word.text == "One.\nTwo.\n\tin a table"
    assert isinstance(named_page, Text)
    assert named_page.text == "Four."
    assert isinstance(portable, Text)
    assert portable.text == "Three."
    assert isinstance(broken, Failure)
    assert "c.pdf is a PDF that cannot be read" in broken.error
    assert "pdftotext" in broken.error
    assert f"subfolders (1) are not read. Pass '{tmp_path}/**/*.txt' to" in caplog.text
    assert "files with other suffixes (1) are not read" in caplog.text


def test_an_unreadable_file_in_a_folder_fails_alone(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.txt").write_bytes(b"\xe9")
    (tmp_path / "c.html").write_text("<html><body></body></html>")
    (tmp_path / "d.txt").write_text("two")
    (tmp_path / "e.txt").mkdir()
    items = list(read_items(find_inputs([str(tmp_path)])))
    assert [isinstance(item, Text) for item in items] == [True, False, False, True]
    errors = [item.error for item in items if isinstance(item, Failure)]
    assert "b.txt is not UTF-8 text: byte 0xe9 in line 1" in errors[0]
    assert "c.html: no main text found in the page" in errors[1]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("nothing/*.txt", "no file matches the pattern"),
        ("A text, not a file. " * 300, "cannot be read: File name too long"),
        (".", r"no \.txt, .*\.docx or \.pdf file in"),
    ],
)
def test_arguments_that_match_nothing_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        find_inputs([word])


LINES = [
    (b'{"article": "one", "id": 7}', Text(Origin("f", 1, 7), "one")),
    (b'{"x": 1, "text": "two", "id": null}\r', Text(Origin("f", 2), "two")),
    (b'{"article": null, "text": "three", "id": true}', Text(Origin("f", 3), "three")),
    (b"", "the line is empty"),
    (b" \t ", "the line is empty"),
    (b'{"text": "  "}', "field 'text' is empty"),
    (b'{"text": 5}', "field 'text' is a number, expected text"),
    (b'{"article": ["a", 1]}', "field 'article' is a list, expected text"),
    (b'{"page": "x", "y": 1}', "looked for article, document, .* found page, y"),
    (b"{}", "found none"),
    (b"[1]", "expected a JSON object, found a list"),
    (b"null", "found null"),
    (b"{", "not valid JSON: .* at character 2"),
    (b'{"text": "\x00"}', "not valid JSON: Invalid control character"),
    (b'{"text": "\xe9"}', "not UTF-8: byte 0xe9 at position 10"),
    (b"[" * 100_000, "nested too deeply"),
    (b"9" * 5000, "not valid JSON: a number has too many digits"),
    (b'{"text": "\\ud800\\u0000"}', Text(Origin("f", 18), "\ud800\x00")),
    (b"x" * 5001, "the line is longer than"),
    (
        b'{"dialogue": [{"speaker": "A", "text": "b"}, {"text": "c"}]}',
        Text(Origin("f", 20), "A: b\nc"),
    ),
    (b'{"content": ["last", "."]}', Text(Origin("f", 21), "last .")),
    (b'{"source": "A newspaper", "text": "Last."}', Text(Origin("f", 22), "Last.")),
    (b'{"article": {"text": "Inside."}}', "found article.text"),
]


def test_every_line_becomes_a_text_or_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_LINE", 100_001)
    lines = [line for line, _ in LINES]
    lines[18] = b"x" * 250_000
    items = list(read_records(io.BytesIO(b"\n".join(lines)), "f", None))
    assert [item.origin.line for item in items] == list(range(1, len(LINES) + 1))
    for item, (_, expected) in zip(items, LINES, strict=True):
        if isinstance(expected, Text):
            assert item == expected
        else:
            assert isinstance(item, Failure)
            assert re.search(expected, item.error), item.error


def test_a_custom_field_is_read() -> None:
    stream = b'{"body": "x", "text": "y"}\n{"text": "y"}\n'
    one, two = read_records(io.BytesIO(stream), "f", "body")
    assert isinstance(one, Text)
    assert one.text == "x"
    assert isinstance(two, Failure)
    assert two.error == "no field with the text: 'body' is missing, found text"


def test_many_lines_need_no_more_memory_than_a_few(tmp_path: Path) -> None:
    line = json.dumps({"text": "x" * 100_000}) + "\n"
    with (tmp_path / "big.jsonl").open("w") as file:
        for _ in range(300):  # 30 MB
            file.write(line)
    tracemalloc.start()
    count = sum(1 for _ in read_items(find_inputs([str(tmp_path / "big.jsonl")])))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 300
    assert peak < 3_000_000


def test_windows_grow_and_are_bounded_in_number_and_weight() -> None:
    sizes = [len(window) for window in windows(range(100), 2, lambda _: 1)]
    assert sizes == [1, 2, 4, *[8] * 11, 5]
    assert {len(window) for window in windows(range(9), 1, lambda _: 1)} == {1}
    heavy = [len(window) for window in windows(range(30), 8, lambda _: 2**21)]
    assert max(heavy) == 2
    assert sum(heavy) == 30


def test_a_web_address_is_read_as_main_text_or_plain_text(tmp_path: Path) -> None:
    lead = "The mayor of Glenford opened the new bridge across the river on Monday morning. " * 4
    (tmp_path / "page.html").write_text(f"<html><body><article><p>{lead}</p></article></body>")
    with serve_files(tmp_path) as web:
        address = f"{web.url.rstrip('/')}/page.html"
        (item,) = read_items(find_inputs([address]))
        assert isinstance(item, Text)
        assert item.origin.file == address
        assert lead.strip() in item.text
        with pytest.raises(BartError, match=r"none\.html"):
            find_inputs([f"{web.url.rstrip('/')}/none.html"])
        with pytest.raises(UsageError, match="JSON lines are not read from the web"):
            find_inputs([f"{web.url.rstrip('/')}/rows.jsonl"])
