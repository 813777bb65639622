"""Convert a `pages-articles` XML dump of Wikipedia to plain text, while unpacking it."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from lzma import LZMAError
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from bart_cli.data.download.http import Fetcher
from bart_cli.data.download.source import Opened, Part, Source, write_documents
from bart_cli.data.download.wikitext import LIST_PAGE, LIST_TITLE, NO_TEXT, clean_wikitext
from bart_cli.data.manifest import Manifest
from bart_cli.data.text_files import HEAD, Stream, refuse_binary, unpacked
from bart_cli.errors import BartError, UsageError
from bart_cli.files import no_such
from bart_cli.progress import Reporter
from bart_cli.runtime.workers import worker_processes

PAGES_PER_FILE = 5_000
# `#REDIRECT [[…]]` in any language: dumps do not mark one that the wiki does not know.
REDIRECT = re.compile(r"\s*#[^\W\d_]+[^\S\n]*:?\s*\[\[")
NO_TEXT_KEYS = {"-2", "6", "14"}  # namespaces Media, File and Category, with localized names


@dataclass
class WikipediaDump(Source):
    """The articles of a dump, with the ids `wikipedia-<page id>`.

    Raises UsageError if there is no such file or it is not an XML dump; BartError if it cannot be
    downloaded.
    """

    dump: str  # path or URL of a `pages-articles` dump, `.xml`, or packed as `.bz2`, `.gz` or `.xz`
    fetcher: Fetcher
    jobs: int = 2  # worker processes
    skip_lists: bool = False  # skip disambiguation pages and lists
    corpus = "wikipedia"
    unit = "pages"
    items = "articles"

    def settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {"dump": self.dump, "pages_per_file": PAGES_PER_FILE}
        return settings | ({"skip_lists": True} if self.skip_lists else {})

    def size(self) -> tuple[str, int]:
        if "://" in self.dump:
            return "1 dump", self.fetcher.size(self.dump) or 0
        self._local_dump()
        return "1 dump", 0

    def _local_dump(self) -> Path:
        if not Path(self.dump).is_file():
            raise no_such(Path(self.dump), "dump")
        return Path(self.dump)

    @contextmanager
    def open(self, manifest: Manifest, reporter: Reporter) -> Opened:
        if "://" in self.dump:
            path = manifest.folder / "dump" / self.dump.rpartition("/")[2]
            if not path.is_file():
                size = self.fetcher.size(self.dump)
                with reporter.task(path.name, total=size, unit="B") as task:
                    self.fetcher.fetch(self.dump, path, on_bytes=task.advance)
            pages = read_dump(path, downloaded=True)
        else:
            pages = read_dump(self._local_dump())
        if self.skip_lists:
            pages = (replace(p, wikitext="") if _is_list(p) else p for p in pages)
        with worker_processes(self.jobs) as pool:

            def write(batch: list[WikiPage], path: Path) -> dict[str, Any]:
                texts = pool.map(_clean_page, batch, chunksize=16)
                return {"documents": write_documents(path, texts), "pages": len(batch)}

            def parts() -> Iterator[Part]:
                batches = iter(lambda: list(islice(pages, PAGES_PER_FILE)), [])
                for number, batch in enumerate(batches):
                    name = f"source/wikipedia-{number:05d}.txt"
                    yield Part(name, self.dump, partial(write, batch), len(batch))

            yield None, parts()

    def dropped(self, manifest: Manifest, failed: int) -> dict[str, int]:
        pages = sum(entry["pages"] for entry in manifest.files.values())
        if not pages:
            raise UsageError(f"{self.dump} contains no article")
        reason = "list or page without text" if self.skip_lists else "page without text"
        return {reason: pages - manifest.documents}


@dataclass(frozen=True)
class WikiPage:
    """An article in a dump."""

    id: str
    wikitext: str
    no_text: frozenset[str]  # namespaces (lower case) whose links are not running text
    title: str = ""


def read_dump(path: Path, *, downloaded: bool = False) -> Iterator[WikiPage]:
    """Yield the articles of a dump (namespace 0) in order, without redirects.

    Raises:
        UsageError: the file is not an XML dump, or is truncated.
        BartError: so is a file that was downloaded, such as a login page; it is deleted.
    """
    try:
        with path.open("rb") as raw, unpacked(raw) as stream:
            refuse_binary(str(path), stream.peek(HEAD)[:HEAD])
            yield from _pages(stream)
    except (ElementTree.ParseError, OSError, EOFError, zlib.error, LZMAError) as error:
        problem = f"{path} is not a complete XML dump: {error}"
        if downloaded:
            path.unlink()
            raise BartError(problem, hint="Rerun the command to download it again.") from None
        raise UsageError(problem) from None


def _is_list(page: WikiPage) -> bool:
    return bool(LIST_TITLE.match(page.title) or LIST_PAGE.search(page.wikitext))


def _clean_page(page: WikiPage) -> tuple[str, str]:
    try:
        text = clean_wikitext(page.wikitext, page.no_text)
    except Exception:  # one page of millions must not stop the run; it counts as without text
        text = ""
    return f"wikipedia-{page.id}", text


def _pages(stream: Stream) -> Iterator[WikiPage]:
    path: list[Any] = []
    no_text = NO_TEXT
    for event, element in ElementTree.iterparse(stream, events=("start", "end")):
        if event == "start":
            path.append(element)
            continue
        path.pop()
        kind = element.tag.rpartition("}")[2]
        if kind == "namespace" and element.get("key") in NO_TEXT_KEYS:
            no_text |= {(element.text or "").lower().replace("_", " ")}
        elif kind == "page":
            find = element.findtext  # any of these elements may be missing
            text = find("{*}revision[last()]/{*}text") or ""
            is_redirect = element.find("{*}redirect") is not None or REDIRECT.match(text)
            if find("{*}ns") == "0" and not is_redirect:
                yield WikiPage(find("{*}id") or "without-id", text, no_text, find("{*}title") or "")
            element.clear()
            if path:
                path[-1].remove(element)  # otherwise the root would keep every page in memory
