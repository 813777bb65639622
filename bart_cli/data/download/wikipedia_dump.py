"""A `pages-articles` XML dump of Wikipedia to plain text, streamed from bz2.

The wikitext is parsed by mwparserfromhell; what has no running text (templates, tables, references,
files, categories, lists of links at the end) is taken out of the tree before the text is read.
"""

from __future__ import annotations

import bz2
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any
from xml.etree import ElementTree

from bart_cli.data.download.http import Fetcher
from bart_cli.data.download.manifest import Manifest
from bart_cli.data.download.writing import DownloadReport, write_documents
from bart_cli.errors import UsageError
from bart_cli.files import remove_leftovers
from bart_cli.progress import Reporter
from bart_cli.workers import worker_processes

PAGES_PER_FILE = 5_000
DROPPED_TAGS = {
    "ref", "references", "table", "gallery", "math", "chem", "timeline", "imagemap", "score",
    "syntaxhighlight", "source", "code", "pre", "hiero", "graph", "mapframe", "noinclude",
    "includeonly", "templatestyles",
}  # fmt: skip
LINK_SECTIONS = {
    "see also", "references", "notes", "footnotes", "external links", "further reading",
    "bibliography", "sources", "citations", "works cited", "notes and references", "gallery",
    "references and notes", "literature", "discography", "filmography", "publications",
}  # fmt: skip
NO_TEXT = frozenset({"file", "image", "media", "category"})  # names that every wiki knows
NO_TEXT_KEYS = {"-2", "6", "14"}  # of Media, File and Category in their own language
# Left by malformed markup: what no parser closes.
LEFTOVERS = [
    re.compile(r"<!--.*?-->", re.S),
    re.compile(r"\[\[\s*(?:file|image|category|media)\s*:(?:\[\[[^\[\]]*\]\]|[^\[\]])*\]\]", re.I),
    re.compile(r"\{\|.*?^\|\}", re.S | re.M),
    re.compile(r"\{\{[^{}]*\}\}"),
    re.compile(r"</?[a-zA-Z][^<>]*>"),
    re.compile(r"__[A-Z]{3,}__"),
    re.compile(r"^[|!{}][^\n]*$", re.M),
    re.compile(r"^[ \t]*[*#:;]+[ \t]*", re.M),
    re.compile(r"'{2,}"),
    re.compile(r"\[https?://\S*\s*|\[//\S*\s*|(?<=\s)\]"),
    re.compile(r"\[\[|\]\]|\{\{|\}\}|\{\||\|\}"),
    re.compile(r"\(\s*[,;:]*\s*\)"),
]


def download_wikipedia_dump(
    dump: str,
    out: Path,
    *,
    fetcher: Fetcher,
    jobs: int = 2,
    pages_per_file: int = PAGES_PER_FILE,
    reporter: Reporter,
) -> DownloadReport:
    """Write OUT/source/wikipedia-<number>.txt with the ids `wikipedia-<page id>`.

    Args:
        dump: path or address of a `pages-articles` dump, `.xml` or `.xml.bz2`.

    Raises:
        UsageError: no such file, or not an XML dump.
        BartError: the server does not give it.
    """
    source = {"corpus": "wikipedia", "dump": dump, "pages_per_file": pages_per_file}
    manifest = Manifest(out, source)
    out.mkdir(parents=True, exist_ok=True)
    remove_leftovers(out)
    path = Path(dump)
    if "://" in dump:
        path = out / "dump" / dump.rpartition("/")[2]
        if not path.is_file():
            size = fetcher.size(dump)
            with reporter.task(path.name, total=size, unit="B") as task:
                fetcher.fetch(dump, path, on_bytes=task.advance)
    elif not path.is_file():
        raise UsageError(f"no such dump: {dump}")
    pages = read_dump(path)
    with (
        worker_processes(jobs) as pool,
        reporter.task("articles", unit="pages") as task,
    ):
        number = 0
        while batch := list(islice(pages, pages_per_file)):
            name = f"source/wikipedia-{number:05d}.txt"
            if not manifest.has(name):
                texts = pool.map(_clean_page, batch, chunksize=16)
                documents = write_documents(out / name, texts)
                manifest.add(name, dump, documents=documents, pages=len(batch))
            task.advance(len(batch), f"{manifest.bytes / 1e6:,.1f} MB")
            number += 1
    pages_read = sum(entry["pages"] for entry in manifest.files.values())
    empty = pages_read - manifest.documents
    if not pages_read:
        raise UsageError(f"{dump} holds no article")
    return DownloadReport(
        folder=str(out),
        documents=manifest.documents,
        bytes=manifest.bytes,
        files=len(manifest.files),
        dropped={"page without text": empty} if empty else {},
    )


@dataclass(frozen=True)
class WikiPage:
    """An article as the dump has it. `no_text`: namespaces whose links are not running text."""

    id: str
    wikitext: str
    no_text: frozenset[str]


def read_dump(path: Path) -> Iterator[WikiPage]:
    """The articles (namespace 0) that are no redirects, in order.

    Raises:
        UsageError: the file is not an XML dump, or is cut in the middle of a bz2 block.
    """
    try:
        with bz2.open(path) if path.suffix == ".bz2" else path.open("rb") as stream:
            yield from _pages(stream)
    except (ElementTree.ParseError, OSError, EOFError) as error:
        raise UsageError(f"{path} is not a whole XML dump: {error}") from None


def clean_wikitext(wikitext: str, no_text: frozenset[str] = NO_TEXT) -> str:
    """The running text of an article: paragraphs and headings, without markup.

    Args:
        no_text: namespaces (lower case) whose links are not running text.
    """
    import mwparserfromhell

    code = mwparserfromhell.parse(_cut_link_sections(wikitext))
    for node in code.filter(recursive=True, forcetype=None):
        if _is_dropped(node, no_text):
            _remove(code, node)
    text = code.strip_code(normalize=True, collapse=True, keep_template_params=False)
    for _ in range(2):  # templates and tables nest
        for pattern in LEFTOVERS:
            text = pattern.sub("", text)
    lines = (" ".join(line.split()) for line in text.splitlines())
    return "\n".join(line for line in lines if line)


def _clean_page(page: WikiPage) -> tuple[str, str]:
    try:
        text = clean_wikitext(page.wikitext, page.no_text)
    except Exception:  # whatever the parser trips over in one page of millions
        text = ""
    return f"wikipedia-{page.id}", text


def _pages(stream: IO[bytes]) -> Iterator[WikiPage]:
    path: list[Any] = []
    no_text = NO_TEXT
    for event, element in ElementTree.iterparse(stream, events=("start", "end")):
        if event == "start":
            path.append(element)
            continue
        path.pop()
        if _local(element.tag) == "namespace" and element.get("key") in NO_TEXT_KEYS:
            no_text |= {(element.text or "").lower()}
        if _local(element.tag) != "page":
            continue
        fields = {_local(child.tag): child for child in element}
        namespace = fields.get("ns")
        if namespace is not None and namespace.text == "0" and "redirect" not in fields:
            # A page may lack anything; without a text it is counted as such.
            texts = (c.text for c in fields.get("revision", ()) if _local(c.tag) == "text")
            number = fields.get("id")
            name = (number.text if number is not None else None) or "without-id"
            yield WikiPage(name, next(texts, "") or "", no_text)
        element.clear()
        if path:
            path[-1].remove(element)  # else the root keeps every page of the dump


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _cut_link_sections(wikitext: str) -> str:
    """Without the sections that are lists of links and sources."""
    kept, skipping = [], 0
    for line in wikitext.splitlines():
        heading = re.match(r"^(={2,6})\s*(.*?)\s*\1\s*$", line)
        if heading:
            level = len(heading[1])
            if skipping and level <= skipping:
                skipping = 0
            if not skipping and heading[2].lower() in LINK_SECTIONS:
                skipping = level
        if not skipping:
            kept.append(line)
    return "\n".join(kept)


def _is_dropped(node: Any, no_text: frozenset[str]) -> bool:
    import mwparserfromhell.nodes as nodes

    if isinstance(node, nodes.Tag):
        return str(node.tag).strip().lower() in DROPPED_TAGS
    if isinstance(node, nodes.Wikilink):
        prefix, colon, _ = str(node.title).strip().partition(":")
        to_other_language = node.text is None and re.fullmatch(r"[a-z]{2,3}(-[a-z]+)?", prefix)
        return bool(colon) and (prefix.strip().lower() in no_text or bool(to_other_language))
    return isinstance(node, (nodes.Template, nodes.Comment, nodes.Argument))


def _remove(code: Any, node: Any) -> None:
    with suppress(ValueError):  # it went with a node around it
        code.remove(node)
