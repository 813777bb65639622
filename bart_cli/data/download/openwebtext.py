"""OpenWebText from its original archive: `.xz` files, each a tar of one `.txt` per document.

In: `openwebtext.tar.xz` unpacked (`urlsf_subset00-1_data.xz` …). Out: `source/<name>.txt`.
"""

from __future__ import annotations

import lzma
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bart_cli.data.download.manifest import Manifest
from bart_cli.data.download.writing import DownloadReport, write_documents
from bart_cli.errors import UsageError
from bart_cli.files import remove_leftovers
from bart_cli.progress import Reporter
from bart_cli.workers import worker_processes


@dataclass(frozen=True)
class _Job:
    archive: Path
    out: Path


@dataclass(frozen=True)
class _Outcome:
    documents: int = 0
    members: int = 0
    damage: str = ""


def extract_openwebtext(
    archives: Path, out: Path, *, jobs: int = 2, reporter: Reporter
) -> DownloadReport:
    """Write a file of documents for each `.xz` below `archives` (or for that one file).

    A damaged archive is named and left out.

    Raises:
        UsageError: no archive there, two of the same name, or none that can be read.
    """
    files = [archives] if archives.is_file() else sorted(archives.rglob("*.xz"))
    if not files:
        raise UsageError(f"no .xz file in {archives}", hint="unpack openwebtext.tar.xz there")
    names: dict[str, Path] = {}
    for path in files:
        other = names.setdefault(f"source/{path.name.removesuffix('.xz')}.txt", path)
        if other != path:
            raise UsageError(
                f"two archives have the same name: {other} and {path}",
                hint="rename one: the files of text, and the ids, are called after them",
            )
    manifest = Manifest(out, {"corpus": "openwebtext", "archives": str(archives)})
    remove_leftovers(out)
    todo = {name: path for name, path in names.items() if not manifest.has(name)}
    damaged = 0
    with worker_processes(jobs) as pool, reporter.task("archives", len(todo), "files") as task:
        tasks = [_Job(path, out / name) for name, path in todo.items()]
        for (name, path), outcome in zip(todo.items(), pool.map(_extract, tasks), strict=True):
            if outcome.damage:
                damaged += 1
                reporter.warn(f"left out: {path}: {outcome.damage}")
            else:
                manifest.add(name, str(path), documents=outcome.documents, members=outcome.members)
            task.advance(1, f"{manifest.documents:,} documents")
    if not manifest.files:
        raise UsageError(f"none of the {len(files):,} archives in {archives} can be read")
    empty = sum(entry["members"] - entry["documents"] for entry in manifest.files.values())
    dropped = {"damaged archive": damaged, "empty document": empty}
    return DownloadReport(
        folder=str(out),
        documents=manifest.documents,
        bytes=manifest.bytes,
        files=len(manifest.files),
        dropped={reason: count for reason, count in dropped.items() if count},
    )


def _extract(job: _Job) -> _Outcome:
    members = 0

    def documents() -> Iterator[tuple[str, str]]:
        nonlocal members
        stem = job.archive.name.removesuffix(".xz")
        with tarfile.open(job.archive, "r:xz") as tar:
            for member in tar:
                stream = tar.extractfile(member) if member.isfile() else None
                if stream is not None:
                    members += 1
                    text = stream.read().decode("utf-8", "replace")
                    yield f"openwebtext-{stem}-{Path(member.name).stem}", text

    try:
        return _Outcome(write_documents(job.out, documents()), members)
    except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
        return _Outcome(damage=str(error) or type(error).__name__)
