"""Extract the text of PDF and Word documents, with pypdf and python-docx.

In: the content of a file. Out: the paragraphs and tables of its text, without layout.
"""

from __future__ import annotations

import io
import logging

from bart_cli.data.text_files import binary_format
from bart_cli.errors import UsageError
from bart_cli.extras import require


def document_text(name: str, content: bytes) -> str | None:
    """Extract the text of a PDF or Word document; return None if the content is neither.

    Raises:
        UsageError: the document is damaged, encrypted, or has no text.
        BartError: the extra `serve` is not installed.
    """
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
    return text.encode("utf-8", "replace").decode()  # a PDF may contain lone surrogates


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
