"""Extract OpenWebText from its original `.xz` archives, each a tar with one `.txt` per document.

In: a folder with these files (`urlsf_subset00-1_data.xz` …), or with the downloaded archives that
contain them (`openwebtext.tar.xz`, `urlsf_subset00.tar`). Out: `source/<name>.txt`.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bart_cli.data.download.source import Opened, Part, Source, damage, write_documents
from bart_cli.data.manifest import Manifest
from bart_cli.errors import BartError, UsageError
from bart_cli.files import sha256
from bart_cli.progress import Reporter
from bart_cli.runtime.workers import worker_processes

DAMAGE = (tarfile.TarError, lzma.LZMAError, EOFError, OSError)


@dataclass(frozen=True)
class _Job:
    """An archive of documents, and the file for its text.

    Attributes:
        name: path of the file below the output folder.
        content: bytes of the archive, if it is inside another one.
    """

    archive: Path
    name: str
    content: bytes | None = None


@dataclass
class _Archives:
    """Jobs for the archives below a path, with unique names. `damaged`: outer archive -> reason."""

    path: Path
    manifest: Manifest
    damaged: dict[Path, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        found = [self.path] if self.path.is_file() else sorted(self.path.rglob("*"))
        files = [
            p
            for p in found
            if p == self.path
            or (p.suffix in (".xz", ".tar") and p.is_file() and not p.name.startswith("._"))
        ]
        if not files:
            raise UsageError(
                f"no .xz file in {self.path}", hint="Put openwebtext.tar.xz there, unpacked or not."
            )
        self.outer = [path for path in files if _holds_archives(path)]
        self.names: dict[str, Path] = {}
        for path in files:
            if path not in self.outer:
                other = self.names.setdefault(_text_file(path.name), path)
                if other != path:
                    raise UsageError(
                        f"two archives have the same name: {other} and {path}",
                        hint="Rename one: text files and document ids use the archive's name.",
                    )

    def jobs(self) -> Iterator[_Job]:
        for name, path in self.names.items():
            if not self.manifest.has(name):
                yield _Job(path, name)
        digests: dict[str, str] = {}
        for outer in self.outer:
            try:
                yield from self._inner_jobs(outer, digests)
            except DAMAGE as error:
                self.damaged[outer] = damage(error)

    def _inner_jobs(self, outer: Path, digests: dict[str, str]) -> Iterator[_Job]:
        with tarfile.open(outer, "r:*") as tar:
            for member in tar:
                inner = outer / member.name
                stream = tar.extractfile(member) if _is_archive(member) else None
                if stream is None:
                    continue
                content, name = stream.read(), _text_file(inner.name)
                digest = hashlib.sha256(content).hexdigest()
                if name in self.names and name not in digests:
                    digests[name] = sha256(self.names[name])
                if digests.setdefault(name, digest) != digest:
                    raise UsageError(
                        f"{inner} differs from another archive of the same name",
                        hint="Remove one of them.",
                    )
                if name not in self.names and not self.manifest.has(name):
                    self.names[name] = inner
                    yield _Job(inner, name, content)


@dataclass
class OpenWebText(Source):
    """A file of documents for each archive at or below a path.

    Nested archives are read without unpacking them to disk. Damaged archives are reported and
    skipped; members that are not text are skipped and counted. Raises UsageError if there is no
    archive, if two have the same name, or if no document is readable.

    Attributes:
        jobs: number of worker processes.
    """

    archives: Path
    jobs: int = 2
    corpus = "openwebtext"
    _damaged: int = 0

    def __post_init__(self) -> None:
        self.threads = self.jobs

    def settings(self) -> dict[str, Any]:
        """See Source."""
        return {"archives": str(self.archives)}

    @contextmanager
    def open(self, manifest: Manifest, reporter: Reporter) -> Opened:
        """See Source."""
        found = _Archives(self.archives, manifest)
        total = None if found.outer else sum(not manifest.has(name) for name in found.names)
        with worker_processes(self.jobs) as pool:

            def part(job: _Job) -> Part:
                def write(path: Path) -> dict[str, int]:
                    return pool.submit(_extract, job, path).result()

                return Part(job.name, str(job.archive), write)

            yield total, map(part, found.jobs())
        for path, problem in found.damaged.items():
            reporter.warn(f"skipped: the rest of {path}: {problem}")
        self._damaged = len(found.damaged)

    def dropped(self, manifest: Manifest, failed: int) -> dict[str, int]:
        """See Source."""
        if not manifest.documents:
            raise UsageError(f"no readable document in the archives of {self.archives}")
        entries = manifest.files.values()
        binary = sum(entry.get("binary", 0) for entry in entries)
        empty = sum(entry["members"] - entry["documents"] for entry in entries) - binary
        damaged = failed + self._damaged
        return {"damaged archive": damaged, "empty document": empty, "not text": binary}


def _extract(job: _Job, out: Path) -> dict[str, int]:
    """Write the documents of an archive; return facts for the manifest."""
    members = binary = 0

    def documents() -> Iterator[tuple[str, str]]:
        nonlocal members, binary
        source = None if job.content is None else io.BytesIO(job.content)
        mode = "r:xz" if job.archive.suffix == ".xz" else "r:*"
        with tarfile.open(job.archive, mode, fileobj=source) as tar:  # type: ignore[call-overload]
            for member in tar:
                stream = tar.extractfile(member) if member.isfile() else None
                if stream is not None:
                    members += 1
                    text = stream.read().decode("utf-8", "replace")
                    if "\0" in text and "\N{REPLACEMENT CHARACTER}" in text:
                        binary += 1
                        continue
                    yield f"openwebtext-{out.stem}-{Path(member.name).stem}", text

    try:
        written = write_documents(out, documents())
        return {"documents": written, "members": members, "binary": binary}
    except DAMAGE as error:
        raise BartError(damage(error)) from None


def _text_file(archive: str) -> str:
    return f"source/{archive.removesuffix('.xz').removesuffix('.tar')}.txt"


def _is_archive(member: tarfile.TarInfo) -> bool:
    name = Path(member.name).name
    return member.isfile() and name.endswith(".xz") and not name.startswith("._")


def _holds_archives(path: Path) -> bool:
    """Whether the first file in an archive is itself an archive."""
    try:
        with tarfile.open(path, "r:*") as tar:
            return next(
                (
                    _is_archive(m)
                    for m in tar
                    if not Path(m.name).name.startswith("._") and m.isfile()
                ),
                False,
            )
    except DAMAGE:
        return False  # extracting it reports the damage
