"""Read the inputs of `bart summarize`: files, folders, patterns, web pages and standard input.

In: arguments of the command line. Out: `Text` and `Failure` items in order, read lazily.
"""

import glob
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from bart_cli.data.text_files import (
    HEAD,
    binary_format,
    named_errors,
    open_utf8,
    recoded,
    refuse_binary,
    unpacked,
    unpacked_name,
)
from bart_cli.errors import BartError, UsageError
from bart_cli.extras import require
from bart_cli.files import is_special, refuse_device
from bart_cli.progress import Reporter
from bart_cli.summarize.documents import READERS, main_text, text_of
from bart_cli.summarize.records import Failure, Origin, Text, read_records

Kind = Literal["text", "html", "jsonl"]

KINDS: dict[str, Kind] = {
    ".txt": "text",
    ".md": "text",
    ".html": "html",
    ".htm": "html",
    ".jsonl": "jsonl",
    ".docx": "text",
    ".pdf": "text",
}
DOCUMENTS = (".docx", ".pdf")
PIPE_TEXT = "To summarize a text, pipe it in: echo 'TEXT' | bart summarize"
STANDARD_INPUT = "standard input"


@dataclass(frozen=True)
class Input:
    """A file to read; standard input or a web page if `path` is None."""

    path: Path | None
    kind: Kind
    # content of standard input, a web page or a pipe (`<(…)`), which can be read only once; empty
    # for JSON lines and files
    text: str = ""
    url: str = ""  # address of a web page

    @property
    def name(self) -> str:
        return self.url or (STANDARD_INPUT if self.path is None else str(self.path))

    @property
    def rereadable(self) -> bool:
        """Whether the input can be read again."""
        return self.path is not None and self.path.is_file()


def find_inputs(
    words: Sequence[str], *, jsonl: bool = False, reporter: Reporter = Reporter()
) -> list[Input]:
    """Expand the arguments of the command line to inputs.

    A folder is expanded to its files with a suffix in KINDS, but not to those in subfolders. A
    pattern (`*`, `?`, `[…]`, `**` for nested folders) is expanded to the files that match it. `-`
    is standard input, and a web address its page. Files given by name are checked here, those found
    in folders or by patterns are not opened.

    Args:
        jsonl: read every input as JSON lines.
    """
    if list(words).count("-") > 1:
        raise UsageError("standard input (-) is named twice; it can be read only once")
    inputs: list[Input] = []
    for word in words:
        if word == "-":
            text = "" if jsonl else text_of(STANDARD_INPUT, sys.stdin.buffer.read())
            inputs.append(Input(None, "jsonl" if jsonl else "text", text))
            continue
        if word.startswith(("http://", "https://")):
            inputs.append(_web_page(word, jsonl))
            continue
        path = Path(word)
        try:
            exists = path.exists()
        except OSError as error:  # a text that is too long for a name
            raise _unreadable(word, error) from None
        if path.is_dir():
            files = _files_in(path, reporter)
        elif not exists and glob.has_magic(word):
            found = (Path(name) for name in glob.iglob(word, recursive=True))  # noqa: PTH207
            files = sorted(file for file in found if file.is_file())
            if not files:
                hint = PIPE_TEXT if " " in word else None
                raise UsageError(f"no file matches the pattern {word}", hint=hint)
        else:
            inputs.append(_check_named(Input(path, _kind(path, jsonl))))
            continue
        inputs += [Input(file, _kind(file, jsonl)) for file in files]
    if pages := [given.name for given in inputs if given.kind == "html"]:
        require(f"the web page {pages[0]}", "data")
    names = (given.name for given in inputs if given.name.lower().endswith(DOCUMENTS))
    if document := next(names, None):
        require(f"the document {document}", "serve")
    return inputs


def check_out(out: Path, inputs: Sequence[Input]) -> None:
    """Raise UsageError if `out` is a folder or one of the inputs."""
    if out.is_dir():
        raise UsageError(f"--out {out} is a folder; expected a file name")
    paths = [given.path for given in inputs if given.path is not None and given.path.exists()]
    if out.exists() and any(out.samefile(path) for path in paths):
        raise UsageError(f"--out {out} is one of the inputs; choose another file")


def read_items(inputs: Sequence[Input], field: str | None = None) -> Iterator[Text | Failure]:
    """Yield the texts of all inputs, in order, and a `Failure` for each one without a text.

    For `field`, see `read_records`.
    """
    for given in inputs:
        if given.kind == "jsonl":
            yield from _records(given, field)
            continue
        try:
            yield Text(Origin(given.name), given.text or _text(given))
        except UsageError as error:
            yield Failure(Origin(given.name), error.message)


def _files_in(folder: Path, reporter: Reporter) -> list[Path]:
    """List the files with a suffix in KINDS, and report what else is in the folder."""
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    below = [path for path in entries if path.is_dir()]
    texts = [path for path in entries if unpacked_name(path).suffix in KINDS]
    files = [path for path in texts if path not in below and not is_special(path)]
    hint = f"Pass '{folder / '**/*.txt'}' to read files in subfolders."
    if not files:
        *most, last = KINDS
        raise UsageError(
            f"no {', '.join(most)} or {last} file in {folder}",
            hint=hint if below else None,
        )
    if below:
        reporter.warn(f"{folder}: subfolders ({len(below):,}) are not read. {hint}")
    if other := len(entries) - len(below) - len(files):
        reporter.info(f"{folder}: files with other suffixes ({other:,}) are not read")
    return files


def _web_page(url: str, jsonl: bool) -> Input:
    """Download a web page (for its main text) or a plain text file."""
    require(f"the web page {url}", "data")
    from bart_cli.data.download.http import Fetcher

    if jsonl or Path(urlsplit(url).path).suffix == ".jsonl":
        raise UsageError(
            f"{url}: JSON lines are not read from the web", hint="Download the file first."
        )
    try:
        content, content_type = Fetcher(attempts=2).page(url)
    except BartError as error:
        error.hint = "Check the address and the network, or save the page and name the file."
        raise
    if content_type.startswith("text/plain") or binary_format(content)[0] in READERS:
        return Input(None, "text", text_of(url, content), url)
    return Input(None, "html", main_text(url, content, content_type), url)


def _kind(path: Path, jsonl: bool) -> Kind:
    return "jsonl" if jsonl else KINDS.get(unpacked_name(path).suffix, "text")


def _check_named(given: Input) -> Input:
    """Check that a file given by name is readable text; read it now if it is a pipe."""
    if given.path is not None and given.path.exists() and not given.rereadable:
        refuse_device(given.path)
        return given if given.kind == "jsonl" else replace(given, text=_text(given))
    head = _bytes(given, HEAD)
    if given.kind != "jsonl" and binary_format(head)[0] in READERS:
        return given  # documents are read once, because it is slow
    if given.kind == "text":
        _text(given)
    elif not head:
        raise UsageError(f"{given.name} is empty: there is no text to summarize")
    else:
        refuse_binary(given.name, head)
    return given


def _records(given: Input, field: str | None) -> Iterator[Text | Failure]:
    try:
        if given.path is None:
            stream = recoded(given.name, sys.stdin.buffer)  # type: ignore[arg-type]
            yield from read_records(stream, given.name, field)
            return
        with open_utf8(given.path) as stream:
            yield from read_records(stream, given.name, field)
    except UsageError as error:
        yield Failure(Origin(given.name), error.message)


def _text(given: Input) -> str:
    _refuse_records(given.name)
    return text_of(given.name, _bytes(given))


def _bytes(given: Input, size: int = -1) -> bytes:
    """The (first `size`) bytes of a file, unpacked."""
    assert given.path is not None
    try:
        raw = given.path.open("rb")
    except OSError as error:
        raise _unreadable(given.name, error) from None
    with named_errors(given.path), raw:
        return unpacked(raw).read(size)


def _unreadable(name: str, error: OSError) -> UsageError:
    """Make the error for a file that cannot be read, which may be a text instead of its name."""
    hint = PIPE_TEXT if " " in name else None
    if isinstance(error, FileNotFoundError):
        return UsageError(f"no such file: {name}", hint=hint)
    return UsageError(f"{name} cannot be read: {error.strerror}", hint=hint)


def _refuse_records(name: str) -> None:
    """Raise UsageError for tables and JSON, which contain records rather than a text."""
    suffix = unpacked_name(Path(name)).suffix
    if suffix in (".csv", ".tsv"):
        module = {".gz": "gzip", ".bz2": "bz2", ".xz": "lzma"}.get(Path(name).suffix.lower(), "io")
        tabs = "" if suffix == ".csv" else ", delimiter='\\t'"
        command = (
            f"import csv, json, {module}; [print(json.dumps(row)) for row in csv.DictReader("
            f"{module}.open('{name}', 'rt', encoding='utf-8-sig', newline=''){tabs})]"
        )
        raise UsageError(
            f"{name} is a {suffix[1:].upper()} table, not a text",
            hint=f'Convert it to JSON lines: python -c "{command}" > NEW.jsonl; '
            "--field names the column with the text.",
        )
    if suffix == ".json":
        raise UsageError(
            f"{name} is JSON, not a text",
            hint="Pass --jsonl when each line is an object; "
            f"convert an array first: jq -c '.[]' {name} > NEW.jsonl",
        )
