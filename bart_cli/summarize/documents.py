"""Extract the text of a file: plain text, a web page, or a PDF or Word document.

In: the content of a file, and its name. Out: the main text of a web page; paragraphs and tables of
a document, without layout.
"""

import io
import logging
import re
from pathlib import Path

from bart_cli.data.text_files import binary_format, decode, refuse_binary, unpacked_name
from bart_cli.errors import UsageError
from bart_cli.extras import require

PAGES = (".html", ".htm")
WEB_PAGE = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?<(?:!doctype\s+html|html)\b", re.IGNORECASE
)


def text_of(name: str, content: bytes) -> str:
    """Extract the text of a file. Its content determines the format, except for PAGES."""
    if (text := document_text(name, content)) is None:
        is_page = unpacked_name(Path(name)).suffix in PAGES or WEB_PAGE.match(content)
        text = main_text(name, content) if is_page else decode(name, content)
    if not text.strip():
        raise UsageError(f"{name} is empty: there is no text to summarize")
    return text.encode("utf-8", "replace").decode()  # a PDF may contain lone surrogates


def document_text(name: str, content: bytes) -> str | None:
    """Extract the text of a PDF or Word document; return None if the content is neither."""
    what, remedy = binary_format(content)
    if what not in READERS:
        return None
    require(f"{name}, {what},", "serve")
    try:
        text = READERS[what](content)
    except UsageError as error:
        raise UsageError(f"{name}: {error.message}") from None
    except Exception:  # the libraries can raise any exception for a damaged file
        line = f"{name} is {what} that cannot be read; it may be damaged"
        raise UsageError(f"{line}. {remedy.format(file=name)}") from None
    if not text.strip():
        raise UsageError(f"{name} has no text (a scanned document needs OCR first)")
    return text


def main_text(name: str, content: bytes, content_type: str = "") -> str:
    """Extract the main text of a web page, without navigation and other boilerplate."""
    refuse_binary(name, content)
    require(f"the web page {name}", "data")
    from bart_cli.data.download.extractors import Page, load_extractor

    text = load_extractor("trafilatura")(Page(url="", html=content, content_type=content_type))
    if not text.strip():
        raise UsageError(f"{name}: no main text found in the page")
    return text


def docx_text(content: bytes) -> str:
    import docx
    from docx.table import Table

    lines = []
    for block in docx.Document(io.BytesIO(content)).iter_inner_content():
        if isinstance(block, Table):
            lines += ["\t".join(cell.text for cell in row.cells) for row in block.rows]
        else:
            lines.append(block.text)
    return "\n".join(lines)


def pdf_text(content: bytes) -> str:
    import pypdf

    logging.getLogger("pypdf").setLevel(logging.ERROR)  # it warns about every odd object
    reader = pypdf.PdfReader(io.BytesIO(content))
    if reader.is_encrypted and not reader.decrypt(""):
        raise UsageError("the PDF is encrypted: save it without a password")
    return "\n".join(page.extract_text() for page in reader.pages)


READERS = {"a PDF": pdf_text, "a Word document (docx)": docx_text}
