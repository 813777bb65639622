"""Read text files found in practice: with byte order marks, gzipped, or in other encodings.

In: bytes or a path. Out: text without byte order marks, or an error that identifies the format of
the file and tells how to convert it.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import re
import shlex
import unicodedata
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bart_cli.errors import UsageError

Stream = io.BufferedReader | gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile  # all have `peek`
HEAD = 65536  # bytes from which the format of a file is detected
# Compressed formats that are unpacked while reading: first bytes, and suffixes.
PACKED: dict[bytes, Any] = {rb"\x1f\x8b": gzip, rb"BZh[1-9]1AY": bz2, rb"\xfd7zXZ": lzma}
PACKED_SUFFIX = re.compile(r"\.(gz|bz2|xz)$")
MARK = "\ufeff"
# UTF-32 before UTF-16, whose little-endian mark is a prefix of UTF-32's.
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
PANDOC = "Extract its text first: pandoc {file} -t plain -o NEW.txt"
OFFICE = "Extract its text first: soffice --headless --convert-to txt:Text {file}"
IMAGE = "Recognize its text first: tesseract {file} NEW"
SPEECH = "Transcribe it first."
SHEET = "Save its sheet as CSV or JSON lines first."
EXPORT = "Export it as text or as docx first."
TABLE = "Convert it to JSON lines first: one object with a 'text' field per line."
# First bytes, name and remedy of each format.
FORMATS: tuple[tuple[bytes, str, str], ...] = (
    (rb"%PDF-", "a PDF", "Extract its text first: pdftotext {file} NEW.txt"),
    (rb"%!PS", "PostScript", "Extract its text first: ps2ascii {file} NEW.txt"),
    (rb"\{\\rtf", "an RTF document", PANDOC),
    (rb"\xd0\xcf\x11\xe0", "a Microsoft Office document (doc, xls or ppt)", OFFICE),
    (rb"\x89PNG|\xff\xd8\xff|GIF8[79]a|II\*\0|MM\0\*|BM.{4}\0{4}|RIFF.{4}WEBP", "an image", IMAGE),
    (rb"ID3[\0-\x09]|\xff[\xe2\xf2-\xfb]|OggS\0|fLaC|RIFF.{4}(WAVE|AVI )|.{4}ftyp|\x1aE\xdf\xa3",
     "audio or video", SPEECH),
    (rb"\x1f\x8b", "compressed with gzip", "Unpack it first: gunzip < {file} > NEW"),
    (rb"BZh[1-9]1AY", "compressed with bzip2", "Unpack it first: bunzip2 < {file} > NEW"),
    (rb"\xfd7zXZ", "compressed with xz", "Unpack it first: unxz < {file} > NEW"),
    (rb"\x28\xb5\x2f\xfd", "compressed with zstd", "Unpack it first: unzstd < {file} > NEW"),
    (rb"7z\xbc\xaf|Rar!\x1a", "an archive", "Unpack it first: 7z x {file}"),
    (rb".{257}ustar", "a tar archive", "Unpack it first: tar xf {file}"),
    (rb"PAR1[\0-\x1f]", "a Parquet table", TABLE),
    (rb"ARROW1\0", "an Arrow table", TABLE),
    (rb"SQLite format 3\0", "an SQLite database", TABLE),
    (rb"WEBVTT\b|1\r?\n[\d:]+[,.]\d+ -->", "a subtitle file",
     "Remove its time codes first: grep -vE '^WEBVTT|-->|^[0-9]+\\s*$' {file} > NEW.txt"),
    (rb"(?:From: <Saved by|MIME-Version:[^<]*multipart/related)", "a web archive (MHTML)",
     "Save the page as HTML instead."),
)  # fmt: skip
# Formats that are zip archives, by the name of a member or, after "mimetype", its content.
MEMBER = rb"PK\x03\x04.{26}(?:mimetype)?"
MEMBERS: tuple[tuple[bytes, str, str], ...] = (
    (rb"word/(_rels|document|media|theme|styles|settings)", "a Word document (docx)", PANDOC),
    (rb"ppt/", "a PowerPoint presentation (pptx)", OFFICE),
    (rb"xl/", "an Excel workbook (xlsx)", SHEET),
    (rb"application/vnd\.oasis\.opendocument\.text", "an OpenDocument text (odt)", PANDOC),
    (rb"application/vnd\.oasis\.opendocument\.spread", "an OpenDocument spreadsheet (ods)", SHEET),
    (rb"application/vnd\.oasis\.opendocument", "an OpenDocument file", OFFICE),
    (rb"application/epub\+zip", "an EPUB book", PANDOC),
    (rb"\[Content_Types\]\.xml", "an Office document (docx, pptx or xlsx)", OFFICE),
    (rb"Index/Document\.iwa", "a Pages, Numbers or Keynote document", EXPORT),
    (rb"|", "a zip archive", "Unpack it first: unzip {file}"),
)
# Non-ASCII letters and symbols of Western European text.
WESTERN = frozenset(
    "àáâãäåæçèéêëìíîïñòóôõöøœùúûüýÿßÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØŒÙÚÛÜÝŸ"
    "‘’‚“”„«»‹›–—…•·€£¥§°©®™ªº¿¡²³¹½¼¾´±×µ\u00a0\u00ad"
)
# Letters or quotation marks of another encoding: a symbol in a word, a capital letter or low
# quotation mark after a small letter, a capital letter or pound sign before a word.
MISREAD = re.compile(
    "(?i:[a-zà-ÿ][¿³¹²£¥¼½¾ªº°§±×¡©®€]+[a-zà-ÿ])|[a-zß-ÿ][À-ÖØ-Þ‚„]|[À-ÖØ-Þ][A-Z][a-z]|£[a-z]"
)
# Encodings of Western European text on Windows, classic Mac OS and DOS (the letters of cp437 have
# the same bytes in cp850), by their names in iconv.
WESTERN_ENCODINGS = {"windows-1252": "cp1252", "macintosh": "mac_roman", "cp850": "cp850"}
# Supersets of ISO 8859 with letters and quotation marks in place of its control codes 80 to 9F.
EXTENDED = {
    f"iso8859-{part}": f"cp{page}"
    for part, page in ((1, 1252), (2, 1250), (5, 1251), (6, 1256), (7, 1253), (8, 1255), (9, 1254))
} | {"iso8859-13": "cp1257", "iso8859-16": "cp1250"}
ISO_2022_JP = re.compile(rb"\x1b\$[@B]")
TOLERATED = 0.3  # maximum ratio of invalid bytes to non-ASCII characters in UTF-8


def binary_format(content: bytes) -> tuple[str, str]:
    """Return the known binary format of a file, by its first bytes, and a remedy; else empty."""
    start = content.removeprefix(codecs.BOM_UTF8).lstrip()[:300]
    if content.startswith(b"PK\x03\x04"):
        found = [kind for kind in MEMBERS if re.search(MEMBER + kind[0], content, re.S)]
    else:
        beginnings = (content, start)
        found = [kind for kind in FORMATS if any(re.match(kind[0], b, re.S) for b in beginnings)]
    return found[0][1:] if found else ("", "")


def refuse_binary(name: str, content: bytes) -> None:
    """Check that a file is text, by its first bytes."""
    what, hint = binary_format(content)
    if what:
        raise UsageError(f"{name} is not text: it is {what}", hint=hint.format(file=_word(name)))


def decode(name: str, content: bytes) -> str:
    """Decode the content of a file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark.

    Line ends become `\\n`, as in Python's text mode.

    Raises:
        UsageError: the format or encoding is different; the hint tells how to convert it.
    """
    refuse_binary(name, content)
    encoding = _encoding(name, content)
    if encoding == "utf-8":
        _refuse_nul(name, content)
    text = _decode(name, content, encoding).replace(MARK, "")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file, including their ends (only `\\n` ends a line).

    Raises:
        UsageError: see `open_utf8`; the file contains NUL bytes or a line that is not UTF-8.
    """
    with open_utf8(path) as stream:
        head = stream.peek(HEAD)[:HEAD]
        _refuse_nul(str(path), head)
        for number, line in enumerate(stream, 1):
            try:
                yield line.decode("utf-8").replace(MARK, "")
            except UnicodeDecodeError as error:
                where = f"in line {number}"
                raise wrong_bytes(str(path), head + line, error, where) from None


@contextmanager
def open_utf8(path: Path) -> Iterator[Stream]:
    """Open a text file as a stream of UTF-8, unpacking gzip, bzip2 and xz, and recoding UTF-16 and
    UTF-32.

    Raises:
        UsageError: the file does not exist, is damaged, has another format, or is UTF-16 without a
            byte order mark.
    """
    with named_errors(path), path.open("rb") as raw:
        yield recoded(str(path), unpacked(raw))


def unpacked_name(path: Path) -> Path:
    """Return the file name in lower case, without `.gz`, `.bz2` or `.xz`."""
    return Path(PACKED_SUFFIX.sub("", path.name.lower()))


def unpacked(raw: io.BufferedReader) -> Stream:
    """Return the stream, unpacked if it begins like a compressed format of PACKED."""
    head = raw.peek(8)
    module = next((PACKED[first] for first in PACKED if re.match(first, head)), None)
    stream: Stream = module.open(raw) if module else raw
    return stream


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Convert errors while reading a file to a one-line error that names it."""
    try:
        yield
    except FileNotFoundError:
        raise UsageError(f"no such file: {path}") from None
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from None
        raise UsageError(f"{path} is damaged: {error}", hint="Download or pack it again.") from None


def recoded(name: str, stream: Stream) -> Stream:
    """Return a UTF-8 stream; UTF-16 and UTF-32 are read into memory to recode them."""
    head = stream.peek(HEAD)[:HEAD]
    refuse_binary(name, head)
    encoding = _encoding(name, head)
    if encoding in ("utf-8", "utf-8-sig"):
        return stream
    text = _decode(name, stream.read(), encoding)
    return io.BufferedReader(io.BytesIO(text.encode()))  # type: ignore[arg-type]


def _decode(name: str, content: bytes, encoding: str) -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = error.object[: error.start].decode(encoding, "replace").count("\n") + 1
        raise wrong_bytes(name, content, error, f"in line {line}") from None


def _encoding(name: str, head: bytes) -> str:
    """The encoding given by the byte order mark; UTF-8 without one."""
    for mark, encoding in MARKS:
        if head.startswith(mark):
            return encoding
    if found := _utf16_without_mark(head[:HEAD]):
        raise UsageError(
            f"{name} is UTF-16 without a byte order mark; expected UTF-8, or UTF-16 with a mark",
            hint=_convert(name, found),
        )
    if ISO_2022_JP.search(head):
        raise UsageError(
            f"{name} is ISO-2022-JP; expected UTF-8", hint=_convert(name, "iso-2022-jp")
        )
    return "utf-8"


def _utf16_without_mark(head: bytes) -> str | None:
    """The byte order of UTF-16: ASCII has NUL bytes on one side, other text is all assigned."""
    nuls = [match.start() % 2 for match in re.finditer(b"\0", head)]
    if not nuls:
        return None
    if len(set(nuls)) == 1 and len(nuls) > max(1, 0.05 * len(head)):
        return "utf-16le" if nuls[0] else "utf-16be"
    is_ascii = len(re.findall(rb"[A-Za-z ]", head)) > 0.6 * len(head)
    for encoding in () if is_ascii or _is_utf8(head) else ("utf-16le", "utf-16be"):
        text = head[: len(head) // 2 * 2].decode(encoding, "replace").removesuffix("\ufffd")
        kinds = {unicodedata.category(char) for char in text if char not in "\n\r\t"}
        if "\ufffd" not in text and kinds.isdisjoint(("Cc", "Cn", "Co", "Cs")):
            return encoding
    return None


def _refuse_nul(name: str, head: bytes) -> None:
    before, nul, _ = head[:HEAD].partition(b"\0")
    if nul:
        line = before.count(b"\n") + 1
        raise UsageError(
            f"{name} is not text: it contains binary data (a NUL byte in line {line})",
            hint="Pass plain text in UTF-8.",
        )


def _is_utf8(head: bytes) -> bool:
    """Whether the bytes are valid UTF-8, except for an incomplete last character."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True


def wrong_bytes(name: str, content: bytes, error: UnicodeDecodeError, where: str) -> UsageError:
    """Make the error for bytes that cannot be decoded; its hint suggests a likely encoding.

    Args:
        content: bytes from which the encoding is guessed.
        where: location of the first invalid byte.
    """
    expected = "UTF-8" if error.encoding == "utf-8" else error.encoding.upper()
    wrong = error.object[error.start]
    guess = None
    hint = f"Determine its encoding (file -i {_word(name)}), then convert it with iconv."
    if expected == "UTF-8" and is_mostly_utf8(content):
        remove = f"iconv -c -f utf-8 -t utf-8 {_word(name)} > NEW"
        hint = f"Most of it is UTF-8. Remove the invalid bytes: {remove}"
    elif expected == "UTF-8":
        guess = guess_encoding(content)
    return UsageError(
        f"{name} is not {expected} text: byte 0x{wrong:02x} {where}",
        hint=f"It looks like {guess}. {_convert(name, guess)}" if guess else hint,
    )


def is_mostly_utf8(content: bytes) -> bool:
    """Whether bytes are UTF-8 except for a few, in relation to the characters beyond ASCII."""
    text = content.decode("utf-8", "replace")
    wide = len(text) - len(text.encode("ascii", "ignore"))
    return text.count("\ufffd") <= wide * TOLERATED


def guess_encoding(content: bytes) -> str | None:
    """Guess the encoding of bytes that are not UTF-8; None if no candidate fits.

    The first encoding in which the text has few non-ASCII letters, all Western European, is taken:
    detectors mistake short texts of that kind for related encodings.
    """
    for guess, codec in WESTERN_ENCODINGS.items():
        text = content.decode(codec, "replace")
        beyond = [char for char in text if char > "\x7f"]
        accented = sum(char.isalpha() for char in beyond)
        is_western = WESTERN.issuperset(beyond) and MISREAD.search(text) is None
        if is_western and accented <= 0.3 * sum(char.isalpha() for char in text):
            return guess
    try:
        from resiliparse.parse.encoding import detect_encoding
    except ModuleNotFoundError:  # the extra `data` is not installed: make no guess
        return None
    name: str = detect_encoding(content, html5_compatible=False) or "utf-8"
    if re.search(rb"[\x80-\x9f]", content):
        name = EXTENDED.get(name, name)
    try:
        text = content.decode(name)
    except (UnicodeDecodeError, LookupError):
        return None
    if re.search("[\x00-\x08\x0e-\x1f\x7f-\x9f]", text):
        return None
    return re.sub(r"^cp(125\d)$", r"windows-\1", name)


def _convert(name: str, encoding: str) -> str:
    return f"Convert it: iconv -f {encoding} -t utf-8 {_word(name)} > NEW"


def _word(name: str) -> str:
    """The file name, quoted for a shell command; FILE if there is no such file."""
    return shlex.quote(name) if Path(name).exists() else "FILE"
