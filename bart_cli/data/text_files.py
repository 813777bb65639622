"""Text files as people have them: byte order marks, gzip, other encodings, and other formats.

In: bytes, or a path. Out: text without byte order marks, or an error line that names what the file
is and how to convert it.
"""

from __future__ import annotations

import codecs
import gzip
import io
import re
import shlex
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bart_cli.errors import UsageError

Stream = io.BufferedReader | gzip.GzipFile  # both have `peek`
HEAD = 65536  # bytes that tell what a file is
GZIP = b"\x1f\x8b"
NEWLINE = b"\n"
MARK = "\ufeff"
# UTF-32 first: its little-endian mark begins with that of UTF-16.
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
TABLE = "Write it as JSON lines first, one object with the text a line."
# How each format begins, what to call it, and what to do about it.
FORMATS: tuple[tuple[bytes, str, str], ...] = (
    (rb"%PDF-", "a PDF", "Extract its text first: pdftotext {file} NEW.txt"),
    (rb"%!PS", "PostScript", "Extract its text first: ps2ascii {file} NEW.txt"),
    (rb"\{\\rtf", "an RTF document", PANDOC),
    (rb"\xd0\xcf\x11\xe0", "a document of an old Microsoft Office", OFFICE),
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
)  # fmt: skip
# A zip archive is what its members say.
MEMBERS = (
    (b"word/document.xml", "a Word document (docx)", PANDOC),
    (b"application/vnd.oasis.opendocument.text", "an OpenDocument text (odt)", PANDOC),
    (b"application/epub+zip", "an EPUB book", PANDOC),
    (b"ppt/presentation.xml", "a PowerPoint presentation (pptx)", OFFICE),
    (b"xl/workbook.xml", "an Excel workbook (xlsx)", "Save its sheet as CSV or JSON lines first."),
)
# Letters and signs beyond ASCII that Western European text is made of.
WESTERN = frozenset(
    "àáâãäåæçèéêëìíîïñòóôõöøœùúûüýÿßÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØŒÙÚÛÜÝŸ"
    "‘’‚“”„«»‹›–—…•·€£¥§°©®™ªº¿¡²³¹½¼¾´±×µ\u00a0\u00ad"
)


def refuse_binary(name: str, content: bytes) -> None:
    """Raise UsageError when the (first) bytes of a file are those of another format than text."""
    what, hint = "", ""
    if content.startswith(b"PK\x03\x04"):
        found = (kind for kind in MEMBERS if kind[0] in content)
        what, hint = next(found, (b"", "a zip archive", "Unpack it first: unzip {file}"))[1:]
    else:
        start = content.removeprefix(codecs.BOM_UTF8).lstrip()[:300]
        for beginning, label, advice in FORMATS:
            if re.match(beginning, content, re.DOTALL) or re.match(beginning, start, re.DOTALL):
                what, hint = label, advice
                break
    if what:
        hint = hint.format(file=_word(name))
        raise UsageError(f"{name} is not text: it is {what}", hint=hint)


def decode(name: str, content: bytes) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark.

    Lines end with `\\n`, as Python's text files do: a file saved on Windows is the same text.

    Raises:
        UsageError: another format or encoding, named with its remedy where it is recognized.
    """
    refuse_binary(name, content)
    encoding = _encoding(name, content)
    if encoding == "utf-8":
        _refuse_nul(name, content)
    text = _decode(name, content, encoding).replace(MARK, "")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: Path) -> Iterator[str]:
    """Lines of a text file with their ends (only `\\n` ends a line).

    Raises:
        UsageError: see `open_utf8`; NUL bytes, or a line that is not UTF-8.
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
    """A text file as a stream of UTF-8: gzip is unpacked, UTF-16 and UTF-32 with a mark recoded.

    Raises:
        UsageError: no such file, damaged gzip, another format, UTF-16 without a mark.
    """
    with named_errors(path), path.open("rb") as raw:
        stream = gzip.open(raw) if raw.peek(2)[:2] == GZIP else raw  # noqa: SIM115
        yield recoded(str(path), stream)  # type: ignore[arg-type]


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Turn errors of reading a file into one line that names it.

    Raises:
        UsageError: no such file, damaged gzip, or an error of the system.
    """
    try:
        yield
    except FileNotFoundError:
        raise UsageError(f"no such file: {path}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UsageError(f"{path} is damaged: {error}", hint="Download or pack it again.") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None


def recoded(name: str, stream: Stream) -> Stream:
    """A stream in UTF-8; what is in UTF-16 or UTF-32 with a mark is read into memory.

    Raises:
        UsageError: see `open_utf8`.
    """
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
    """The encoding that a byte order mark states, UTF-8 without one.

    Raises:
        UsageError: NUL bytes that are those of UTF-16 without a mark.
    """
    for mark, encoding in MARKS:
        if head.startswith(mark):
            return encoding
    nuls = [match.start() % 2 for match in re.finditer(b"\0", head[:HEAD])]
    if len(set(nuls)) == 1 and (len(nuls) > max(1, 0.05 * len(head)) or not _is_utf8(head)):
        encoding = "utf-16le" if nuls[0] else "utf-16be"
        raise UsageError(
            f"{name} is UTF-16 without a byte order mark; expected UTF-8, or UTF-16 with a mark",
            hint=_convert(name, encoding),
        )
    return "utf-8"


def _refuse_nul(name: str, head: bytes) -> None:
    nul = head.find(b"\0", 0, HEAD)
    if nul >= 0:
        raise UsageError(
            f"{name} is not text: it holds binary data (a NUL byte in line "
            f"{head.count(NEWLINE, 0, nul) + 1})",
            hint="Give plain text in UTF-8.",
        )


def _is_utf8(head: bytes) -> bool:
    """Whether the bytes are UTF-8, up to a last character that may be cut."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True


def wrong_bytes(name: str, content: bytes, error: UnicodeDecodeError, where: str) -> UsageError:
    """The error for bytes that are not of the expected encoding; a likely encoding is its hint.

    Args:
        where: the place of the first such byte.
    """
    expected = "UTF-8" if error.encoding == "utf-8" else error.encoding.upper()
    wrong = error.object[error.start]
    guess = guess_encoding(content) if expected == "UTF-8" else None
    hint = f"Find out its encoding (file -i {_word(name)}), then convert it with iconv."
    return UsageError(
        f"{name} is not {expected} text: byte 0x{wrong:02x} {where}",
        hint=f"It looks like {guess}. {_convert(name, guess)}" if guess else hint,
    )


def guess_encoding(content: bytes) -> str | None:
    """The likely encoding of bytes that are not UTF-8, None when none of the candidates fits.

    Few letters beyond ASCII, all of Western Europe: windows-1252. Detectors take short texts of
    that kind for any of its relatives.
    """
    text = content.decode("cp1252", "replace")
    letters = sum(char.isalpha() for char in text)
    beyond = [char for char in text if char > "\x7f"]
    accented = sum(char.isalpha() for char in beyond)
    if WESTERN.issuperset(beyond) and accented <= 0.3 * letters:
        return "windows-1252"
    try:
        from resiliparse.parse.encoding import detect_encoding
    except ModuleNotFoundError:  # of the extra `data`; the error that asks does without a guess
        return None
    name: str = detect_encoding(content) or "utf-8"
    if name == "iso8859-2" and re.search(rb"[\x80-\x9f]", content):
        name = "cp1250"  # its quotation marks are control codes in ISO 8859
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
    """A file as a word of a shell command."""
    return shlex.quote(name) if Path(name).exists() else "FILE"
