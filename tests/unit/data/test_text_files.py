"""Text files in several encodings, compressed files, and files that are not text."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from pathlib import Path
from typing import Any

import pytest

from bart_cli.data.text_files import decode, guess_encoding, read_lines
from bart_cli.errors import UsageError

TEXT = "The mayor – “at last” – opened the café.\nПривет, мир.\n市長は\n"


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_marked_encodings_are_read(tmp_path: Path, encoding: str, pack: Any) -> None:
    content = TEXT.encode(encoding)
    assert decode("x", content) == TEXT
    path = tmp_path / "x.txt"
    path.write_bytes(pack(content))
    assert list(read_lines(path)) == TEXT.splitlines(keepends=True)
    assert decode("x", b"\xfe\xff" + TEXT.encode("utf-16-be")) == TEXT


def test_a_file_saved_on_windows_is_the_same_text() -> None:
    assert decode("x", b"A: hi\r\nB: yes\r\n\r\nC") == decode("x", b"A: hi\nB: yes\n\nC")


def test_byte_order_marks_inside_joined_files_are_not_text(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes("\ufeffone\n\ufefftwo\n".encode())
    assert list(read_lines(path)) == ["one\n", "two\n"]
    assert decode("x", path.read_bytes()) == "one\ntwo\n"


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(
    "text", ["Hello, world.\n", "Привет, мир. Мост открыт.\n", TEXT, "市長は一\n"]
)
def test_utf16_without_a_mark_is_refused_by_name(encoding: str, text: str) -> None:
    with pytest.raises(UsageError, match="is UTF-16 without a byte order mark") as caught:
        decode("x", text.encode(encoding))
    assert f"iconv -f {encoding.replace('16-', '16')} -t utf-8" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("He opened it – “at last”.\r\nAll came.", "windows-1252"),
        ("Der Bürgermeister eröffnete die neue Brücke.", "windows-1252"),
        ("a caf\xe9", "windows-1252"),
        ("The mayor’s “new” bridge — it’s open.", "macintosh"),
        ("La città è più bella. Ça va être agréable à Genève.", "macintosh"),
        ("Die Straße ist größer als früher.", "macintosh"),
        ("La città è più bella. Ça va être agréable à Genève.", "cp850"),
        ("Die Straße ist größer als früher.", "cp850"),
        ("Borgmesteren åbnede broen. Øen er større på kortet.", "cp850"),
        ("Мэр открыл новый мост в понедельник.", "windows-1251"),
        ("Starosta otevřel nový most. Příliš žluťoučký kůň úpěl.", "windows-1250"),
        ("Burmistrz otworzył nowy most. Zażółć gęślą jaźń. Święta są już blisko.", "windows-1250"),
        ("市長は月曜日に新しい橋を開通させた。", "shift_jis"),
        ("글렌포드 시장은 월요일에 새 다리를 개통했다.", "cp949"),
    ],
)
def test_other_encodings_are_detected(tmp_path: Path, text: str, encoding: str) -> None:
    content = text.encode(encoding)
    assert guess_encoding(content) == encoding
    path = tmp_path / "x y.txt"
    path.write_bytes(b"first line\n" + content)
    for read in (lambda: decode(str(path), path.read_bytes()), lambda: list(read_lines(path))):
        with pytest.raises(UsageError, match=r"byte 0x.. in line 2") as caught:
            read()
        assert f"iconv -f {encoding} -t utf-8 '{path}'" in str(caught.value.hint)


def test_a_nul_byte_does_not_make_ascii_utf16() -> None:
    with pytest.raises(UsageError, match="a NUL byte in line 1"):
        decode("a.txt", b"It\x92s a line of text with a NUL\0.")


def test_a_few_invalid_bytes_do_not_make_it_another_encoding() -> None:
    with pytest.raises(UsageError, match="byte 0x93 in line 2") as caught:
        decode("x", "café, très à l’été\n".encode() + b"\x93")
    assert str(caught.value.hint).endswith("iconv -c -f utf-8 -t utf-8 FILE > NEW")
    with pytest.raises(UsageError, match="is ISO-2022-JP") as caught:
        decode("x", "市長は".encode("iso2022_jp"))
    assert "iconv -f iso-2022-jp" in str(caught.value.hint)


OASIS = "application/vnd.oasis.opendocument"


def _zip(*members: str, content: str = "x") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for member in members:
            archive.writestr(member, content)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"%PDF-1.4\n%\xe2\xe3", "a PDF"),
        (b"\xef\xbb\xbf\n%PDF-1.4\n", "a PDF"),
        (rb"{\rtf1\ansi Hello}", "an RTF document"),
        # The document itself follows after large images, beyond the bytes that are examined.
        (_zip("[Content_Types].xml", "word/media/image1.png"), "a Word document"),
        (_zip("[Content_Types].xml", "docProps/thumbnail.jpeg"), "an Office document"),
        (_zip("xl/workbook.xml"), "an Excel workbook"),
        (_zip("mimetype", content=f"{OASIS}.text"), "an OpenDocument text"),
        (_zip("mimetype", content=f"{OASIS}.spreadsheet"), "an OpenDocument spreadsheet"),
        (_zip("mimetype", content=f"{OASIS}.presentation"), "an OpenDocument file"),
        (_zip("a.txt", "word/list.txt", "xl.txt"), "a zip archive"),
        (b"\x89PNG\r\n\x1a\n", "an image"),
        (b"\xff\xd8\xff\xe0", "an image"),
        (b"RIFF\0\0\0\0WAVEfmt ", "audio or video"),
        (b"\xfd7zXZ\0", "compressed with xz"),
        (b"PAR1\x15\x04", "a Parquet table"),
        (b"1\r\n00:00:01,000 --> 00:00:02,000\r\nHello", "a subtitle file"),
        (b"\xef\xbb\xbfWEBVTT\n\n00:01.000 --> 00:02.000\nHello", "a subtitle file"),
        (b'MIME-Version: 1.0\nContent-Type: multipart/related; boundary="x"\n', "a web archive"),
        (b"\0\1\2\3", "binary data"),
        (b"plain text with one NUL\0 in it", "binary data .a NUL byte in line 1"),
    ],
)
def test_other_formats_are_named_with_a_remedy(content: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=f"x is not text: .*{message}") as caught:
        decode("x", content)
    assert caught.value.hint


@pytest.mark.parametrize(
    "text",
    ["BM opened a shop.", "ID3 tags", "PK is short for park", "RIFF", "PAR1 is a name"],
)
def test_text_that_begins_like_a_format_is_text(text: str) -> None:
    assert decode("x", text.encode()) == text


def test_a_damaged_packed_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    for pack in (gzip.compress, bz2.compress, lzma.compress):
        whole = pack(TEXT.encode() * 100)
        for content in (whole[:-20], whole[:30] + whole[40:]):
            path.write_bytes(content)
            with pytest.raises(UsageError, match=r"x\.gz is damaged"):
                list(read_lines(path))
    with pytest.raises(UsageError, match="no such file"):
        list(read_lines(tmp_path / "y"))
