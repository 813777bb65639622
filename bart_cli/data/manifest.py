"""`manifest.json` lists the contents of a download folder, so that a rerun fetches only the rest.

{"source": {…request…}, "files": {name: {"url", "size", "sha256", "documents", …}}}, rewritten
atomically after each completed file. It has no timestamps, so that equal runs give equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from bart_cli.errors import START_ANEW, UsageError
from bart_cli.files import Record, bind, read_object, sha256, write_text

NAME = "manifest.json"


def recorded_source(folder: Path) -> dict[str, Any]:
    """Return the request recorded in the manifest of `folder`; empty without a readable one."""
    try:
        return _read(folder / NAME)[0]
    except (OSError, UsageError):
        return {}


class Manifest:
    """The manifest of `folder`; thread-safe.

    Args:
        source: the request: corpus, filters, extractor and other settings that affect the files.

    Raises:
        UsageError: the folder contains the result of a different request.
    """

    def __init__(self, folder: Path, source: Mapping[str, Any]) -> None:
        self._path = folder / NAME
        self.folder = folder
        self._lock = Lock()
        self._source = json.loads(json.dumps(source, default=str))
        self.files: dict[str, dict[str, Any]] = {}
        if self._path.is_file():
            known, self.files = _read(self._path)
            bind(folder, "a download", Record(known), Record(self._source))

    def has(self, name: str) -> bool:
        """Whether the file is recorded and exists with the recorded size."""
        entry, path = self.files.get(name), self.folder / name
        return entry is not None and path.is_file() and path.stat().st_size == entry["size"]

    def add(self, name: str, url: str, **facts: Any) -> None:
        """Record a complete file with its facts (`documents=…`) and write the manifest."""
        path = self.folder / name
        entry = {"url": url, "size": path.stat().st_size, "sha256": sha256(path), **facts}
        with self._lock:
            self.files[name] = entry
            content = {"source": self._source, "files": dict(sorted(self.files.items()))}
            write_text(self._path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    @property
    def documents(self) -> int:
        return sum(entry.get("documents", 0) for entry in self.files.values())

    @property
    def bytes(self) -> int:
        return sum(entry["size"] for entry in self.files.values())


def _read(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the request and the files; raise UsageError if the manifest is damaged."""
    content = read_object(path)
    source, files = content.get("source"), content.get("files")
    if not isinstance(source, dict) or not isinstance(files, dict):
        raise UsageError(f"{path} is damaged", hint=START_ANEW)
    return source, files
