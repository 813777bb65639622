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
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from bart_cli.data.download.writing import DownloadReport, write_documents
from bart_cli.data.manifest import Manifest
from bart_cli.errors import UsageError
from bart_cli.files import remove_leftovers, sha256
from bart_cli.progress import Reporter
from bart_cli.runtime.locks import exclusive
from bart_cli.runtime.workers import worker_processes

DAMAGE = (tarfile.TarError, lzma.LZMAError, EOFError, OSError)


@dataclass(frozen=True)
class _Job:
    """An archive of documents. `content`: its bytes, if it is inside another archive."""

    archive: Path
    out: Path
    content: bytes | None = None


@dataclass(frozen=True)
class _Outcome:
    documents: int = 0
    members: int = 0
    binary: int = 0
    damage: str = ""


@dataclass
class _Archives:
    """Jobs for the archives below a path, with unique names. `damaged`: outer archive -> reason."""

    path: Path
    out: Path
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
                yield _Job(path, self.out / name)
        digests: dict[str, str] = {}
        for outer in self.outer:
            try:
                yield from self._inner_jobs(outer, digests)
            except DAMAGE as error:
                self.damaged[outer] = str(error) or type(error).__name__

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
                    yield _Job(inner, self.out / name, content)


@exclusive
def extract_openwebtext(
    archives: Path, out: Path, *, jobs: int = 2, reporter: Reporter
) -> DownloadReport:
    """Write a file of documents for each archive at or below `archives`.

    Nested archives are read without unpacking them to disk. Damaged archives are reported and
    skipped; members that are not text are skipped and counted.

    Args:
        jobs: number of worker processes.

    Raises:
        UsageError: there is no archive, two archives have the same name, or no document is
            readable.
    """
    manifest = Manifest(out, {"corpus": "openwebtext", "archives": str(archives)})
    remove_leftovers(out)
    found = _Archives(archives, out, manifest)
    damaged = 0
    total = None if found.outer else sum(not manifest.has(name) for name in found.names)
    with worker_processes(jobs) as pool, reporter.task("archives", total, "files") as task:
        queue = found.jobs()
        while batch := list(islice(queue, 4 * jobs)):  # bounds the memory
            for job, outcome in zip(batch, pool.map(_extract, batch), strict=True):
                if outcome.damage:
                    damaged += 1
                    reporter.warn(f"skipped: {job.archive}: {outcome.damage}")
                else:
                    manifest.add(
                        str(job.out.relative_to(out)),
                        str(job.archive),
                        documents=outcome.documents,
                        members=outcome.members,
                        binary=outcome.binary,
                    )
                task.advance(1, f"{manifest.documents:,} documents")
    for path, damage in found.damaged.items():
        damaged += 1
        reporter.warn(f"skipped: the rest of {path}: {damage}")
    if not manifest.documents:
        raise UsageError(f"no readable document in the archives of {archives}")
    entries = manifest.files.values()
    binary = sum(entry.get("binary", 0) for entry in entries)
    empty = sum(entry["members"] - entry["documents"] for entry in entries) - binary
    dropped = {"damaged archive": damaged, "empty document": empty, "not text": binary}
    return DownloadReport(
        folder=str(out),
        documents=manifest.documents,
        bytes=manifest.bytes,
        files=len(manifest.files),
        dropped={reason: count for reason, count in dropped.items() if count},
    )


def _extract(job: _Job) -> _Outcome:
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
                    yield f"openwebtext-{job.out.stem}-{Path(member.name).stem}", text

    try:
        return _Outcome(write_documents(job.out, documents()), members, binary)
    except DAMAGE as error:
        return _Outcome(damage=str(error) or type(error).__name__)


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
