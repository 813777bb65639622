"""Extract OpenWebText from its original `.xz` archives, each a tar with one `.txt` per document.

In: a folder with these files (`urlsf_subset00-1_data.xz` …), or with the downloaded archives that
contain them (`openwebtext.tar.xz`, `urlsf_subset00.tar`), packed in any way that tarfile reads.
Out: `source/<name>.txt`.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from bart_cli.data.download.source import Opened, Part, Source, damage, write_documents
from bart_cli.data.manifest import Manifest
from bart_cli.errors import BartError, UsageError
from bart_cli.files import sha256
from bart_cli.progress import Reporter
from bart_cli.runtime.workers import worker_processes

ARCHIVE = re.compile(r"\.(xz|tar|t[gx]z|tbz2?|tar\.gz|tar\.bz2)$", re.IGNORECASE)
FIRST = 20  # members of an archive that are examined for its kind
BINARY = 0.01  # ratio of NUL characters
DAMAGE = (tarfile.TarError, lzma.LZMAError, EOFError, OSError)


@dataclass
class OpenWebText(Source):
    """A file of documents for each archive at or below a path.

    Nested archives are read without unpacking them to disk. Damaged archives are reported and
    skipped; members that are not text are skipped and counted. Raises UsageError if there is no
    archive, if two have the same name, or if no document is readable.
    """

    archives: Path
    jobs: int = 2  # worker processes
    corpus = "openwebtext"

    def __post_init__(self) -> None:
        self.threads = self.jobs
        self._damaged: dict[Path, str] = {}  # outer archive -> reason

    def settings(self) -> dict[str, Any]:
        return {"archives": str(self.archives)}

    @contextmanager
    def open(self, manifest: Manifest, reporter: Reporter) -> Opened:
        names, outer = self._find()
        total = None if outer else sum(not manifest.has(name) for name in names)
        with worker_processes(self.jobs) as pool:

            def part(name: str, archive: Path, content: bytes | None = None) -> Part:
                def write(path: Path) -> dict[str, int]:
                    return pool.submit(_extract, archive, content, path).result()

                return Part(name, str(archive), write)

            def parts() -> Iterator[Part]:
                for name, path in names.items():
                    if not manifest.has(name):
                        yield part(name, path)
                digests: dict[str, str] = {}
                for path in outer:
                    try:
                        for name, inner, content in _inner_archives(path, names, digests):
                            if name not in names and not manifest.has(name):
                                names[name] = inner
                                yield part(name, inner, content)
                    except DAMAGE as error:
                        self._damaged[path] = damage(error)

            yield total, parts()
        for path, problem in self._damaged.items():
            reporter.warn(f"skipped: the rest of {path}: {problem}")

    def _find(self) -> tuple[dict[str, Path], list[Path]]:
        """Find archives of documents, by text file, and archives of such archives."""
        found = [p for p in sorted(self.archives.rglob("*")) if ARCHIVE.search(p.name)]
        files = [p for p in found if p.is_file() and not p.name.startswith("._")]
        if self.archives.is_file():
            files = [self.archives]
        if not files:
            raise UsageError(
                f"no .xz or .tar archive in {self.archives}",
                hint="Put openwebtext.tar.xz there, unpacked or not; unpack a .zip or .zst first.",
            )
        outer = [path for path in files if _holds_archives(path)]
        names: dict[str, Path] = {}
        for path in files:
            if path not in outer:
                other = names.setdefault(_text_file(path.name), path)
                if other != path:
                    raise UsageError(
                        f"two archives have the same name: {other} and {path}",
                        hint="Rename one: text files and document ids use the archive's name.",
                    )
        return names, outer

    def dropped(self, manifest: Manifest, failed: int) -> dict[str, int]:
        if not manifest.documents:
            raise UsageError(f"no readable document in the archives of {self.archives}")
        entries = manifest.files.values()
        binary = sum(entry.get("binary", 0) for entry in entries)
        empty = sum(entry["members"] - entry["documents"] for entry in entries) - binary
        damaged = failed + len(self._damaged)
        return {"damaged archive": damaged, "empty document": empty, "not text": binary}


def _inner_archives(
    outer: Path, names: dict[str, Path], digests: dict[str, str], packed: bytes | None = None
) -> Iterator[tuple[str, Path, bytes]]:
    """Yield the text file, path and content of each archive of documents in another archive.

    Args:
        packed: content of `outer`, if it is inside another archive.

    Raises:
        UsageError: its content differs from that of an archive in `names` or `digests`.
    """
    with _tar(outer, packed) as tar:
        for member in tar:
            inner = outer / member.name
            stream = tar.extractfile(member) if _is_archive(member) else None
            if stream is None:
                continue
            content, name = stream.read(), _text_file(inner.name)
            if _holds_archives(inner, content):
                yield from _inner_archives(inner, names, digests, content)
                continue
            digest = hashlib.sha256(content).hexdigest()
            if name in names and name not in digests:
                digests[name] = sha256(names[name])
            if digests.setdefault(name, digest) != digest:
                raise UsageError(
                    f"{inner} differs from another archive of the same name",
                    hint="Remove one of them.",
                )
            yield name, inner, content


def _extract(archive: Path, content: bytes | None, out: Path) -> dict[str, int]:
    """Write the documents of an archive (its `content`, if it is inside another one)."""
    members = binary = 0

    def documents() -> Iterator[tuple[str, str]]:
        nonlocal members, binary
        with _tar(archive, content) as tar:
            for member in tar:
                stream = tar.extractfile(member) if member.isfile() else None
                if stream is not None:
                    members += 1
                    text = stream.read().decode("utf-8", "replace")
                    nuls = text.count("\0")
                    if nuls and ("\ufffd" in text or nuls > BINARY * len(text)):
                        binary += 1
                        continue
                    yield f"openwebtext-{out.stem}-{Path(member.name).stem}", text

    try:
        written = write_documents(out, documents())
        return {"documents": written, "members": members, "binary": binary}
    except DAMAGE as error:
        raise BartError(damage(error)) from None


def _text_file(archive: str) -> str:
    return f"source/{ARCHIVE.sub('', ARCHIVE.sub('', archive))}.txt"


def _is_archive(member: tarfile.TarInfo) -> bool:
    name = Path(member.name).name
    return member.isfile() and ARCHIVE.search(name) is not None and not name.startswith("._")


def _tar(path: Path, content: bytes | None) -> tarfile.TarFile:
    """Open an archive, given its content if it is inside another one."""
    return tarfile.open(path, "r:*", fileobj=None if content is None else io.BytesIO(content))


def _holds_archives(path: Path, content: bytes | None = None) -> bool:
    """Whether one of the first members of an archive is itself an archive."""
    try:
        with _tar(path, content) as tar:
            return any(map(_is_archive, islice(tar, FIRST)))
    except DAMAGE:
        return False  # extracting it reports the damage
