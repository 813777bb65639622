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
from pathlib import Path

from bart_cli.errors import UsageError

HEAD = 65536  # bytes that tell what a file is
GZIP = b"\x1f\x8b"
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
    (rb"\x1f\x8b", "compressed with gzip", "Unpack it first: gunzip {file}"),
    (rb"BZh[1-9]1AY", "compressed with bzip2", "Unpack it first: bunzip2 {file}"),
    (rb"\xfd7zXZ", "compressed with xz", "Unpack it first: unxz {file}"),
    (rb"\x28\xb5\x2f\xfd", "compressed with zstd", "Unpack it first: unzstd {file}"),
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
    """The text of a file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark.

    Raises:
        UsageError: another format or encoding, named with its remedy where it is recognized.
    """
    refuse_binary(name, content)
    encoding = _encoding(name, content)
    try:
        return content.decode(encoding).replace(MARK, "")
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode(encoding, "replace")
        raise _wrong_bytes(name, content, error, before.count("\n") + 1) from None


def read_lines(path: Path) -> Iterator[str]:
    """Lines of a text file with their ends (only `\\n` ends a line); gzip is unpacked.

    Raises:
        UsageError: no such file, damaged gzip, or as `decode`, with the line.
    """
    try:
        with path.open("rb") as raw, _unpacked(raw) as stream:
            head = stream.peek(HEAD)[:HEAD]
            refuse_binary(str(path), head)
            encoding = _encoding(str(path), head)
            if encoding not in ("utf-8", "utf-8-sig"):
                yield from io.StringIO(decode(str(path), stream.read()), newline="\n")
                return
            for number, raw_line in enumerate(stream, 1):
                try:
                    yield raw_line.decode("utf-8").replace(MARK, "")
                except UnicodeDecodeError as error:
                    raise _wrong_bytes(str(path), head + raw_line, error, number) from None
    except FileNotFoundError:
        raise UsageError(f"no such file: {path}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UsageError(f"{path} is damaged: {error}", hint="Download or pack it again.") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None


def _unpacked(stream: io.BufferedReader) -> io.BufferedReader | gzip.GzipFile:
    return gzip.open(stream) if stream.peek(2)[:2] == GZIP else stream


def _encoding(name: str, head: bytes) -> str:
    """The encoding that a byte order mark states, UTF-8 without one.

    Raises:
        UsageError: NUL bytes that are those of UTF-16 without a mark, or of no text at all.
    """
    for mark, encoding in MARKS:
        if head.startswith(mark):
            return encoding
    nuls = [match.start() % 2 for match in re.finditer(b"\0", head[:HEAD])]
    if not nuls:
        return "utf-8"
    if len(set(nuls)) == 1 and (len(nuls) > max(1, 0.05 * len(head)) or not _is_utf8(head)):
        encoding = "utf-16le" if nuls[0] else "utf-16be"
        raise UsageError(
            f"{name} is UTF-16 without a byte order mark; expected UTF-8, or UTF-16 with a mark",
            hint=_convert(name, encoding),
        )
    line = head.count(b"\n", 0, head.index(b"\0")) + 1
    raise UsageError(
        f"{name} is not text: it holds binary data (a NUL byte in line {line})",
        hint="Give plain text in UTF-8.",
    )


def _is_utf8(head: bytes) -> bool:
    """Whether the bytes are UTF-8, up to a last character that may be cut."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True


def _wrong_bytes(name: str, content: bytes, error: UnicodeDecodeError, line: int) -> UsageError:
    """The error for bytes that are not of the expected encoding; a likely encoding is its hint."""
    expected = "UTF-8" if error.encoding == "utf-8" else error.encoding.upper()
    wrong = error.object[error.start]
    guess = guess_encoding(content) if expected == "UTF-8" else None
    hint = f"Find out its encoding (file -i {_word(name)}), then convert it with iconv."
    return UsageError(
        f"{name} is not {expected} text: byte 0x{wrong:02x} in line {line}",
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
