"""Write files and folders atomically (temporary name, fsync, rename); bind folders to inputs."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bart_cli.errors import START_ANEW, UsageError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # disk, quota, `ulimit -f`


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`, and rename it to `path` if the block succeeds.

    A symbolic link keeps pointing to the file. A device or a pipe is not replaced: it is yielded.
    """
    if is_special(path):
        yield path
        return
    if path.is_symlink():
        path = Path(os.path.realpath(path))
    with _temporary(path) as temporary:
        yield temporary
        _sync(temporary)
        temporary.replace(path)


def is_special(path: Path) -> bool:
    """Return whether a path is a device or a pipe, such as /dev/stdout."""
    return path.exists() and not path.is_file() and not path.is_dir()


def no_such(path: Path, kind: str = "file or folder", hint: str | None = None) -> UsageError:
    """Make the error for a path at which there is no regular file."""
    if is_special(path):
        return UsageError(
            f"{path} is a pipe or device; expected a file, which can be read more than once",
            hint="Write its content to a file first.",
        )
    return UsageError(f"no such {kind}: {path}", hint=hint)


def refuse_device(path: Path) -> None:
    """Raise UsageError for a device, which may be endless; a pipe is allowed."""
    if path.is_char_device() or path.is_block_device():
        raise UsageError(f"{path} is a device; expected a file or a pipe")


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder next to `path`, and rename it to `path` if the block succeeds.

    An existing folder is replaced once the new one is complete.
    """
    with _temporary(path) as temporary:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        yield temporary
        for file in sorted(temporary.rglob("*")):
            if file.is_file():
                _sync(file)
        old = path.with_name(f".{path.name}.{os.getpid()}.old")
        if path.exists():
            path.rename(old)
        temporary.rename(path)
        _sync(path.parent)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`, and delete it at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
    except OSError as error:
        if error.filename is None and error.errno in FULL:
            error.filename = str(path)  # a failed write does not know its file
        raise
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def strict_json(content: object, *, indent: int | None = None, ascii_only: bool = False) -> str:
    """Serialize to standard JSON: NaN and infinity become null."""
    return json.dumps(_finite(content), indent=indent, ensure_ascii=ascii_only, allow_nan=False)


def _finite(content: object) -> object:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return content if content is None or isinstance(content, str | int) else str(content)


def complete_lines(path: Path) -> Iterator[tuple[Any, int]]:
    """Yield the parsed lines of a JSON lines file, each with the byte offset of its end.

    Stop at the first line that is truncated or not JSON: a crash may leave garbage at the end.
    """
    with path.open("rb") as stream:
        yield from parsed_lines(stream)


def parsed_lines(lines: Iterable[bytes]) -> Iterator[tuple[Any, int]]:
    """Do the same for lines in memory."""
    end = 0
    for line in lines:
        try:
            content = json.loads(line)
        except ValueError:
            return
        if not line.endswith(b"\n"):
            return
        end += len(line)
        yield content, end


def read_object(path: Path, hint: str = START_ANEW) -> dict[str, Any]:
    """Read a JSON object that a command has written to its folder; empty if there is no such file.

    Raises:
        UsageError: the file is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, OSError) as error:
        raise UsageError(f"{path} is damaged: {error}", hint=hint) from None
    if not isinstance(content, dict):
        raise UsageError(f"{path} is damaged: expected a JSON object", hint=hint)
    return content


def require_folder(out: Path) -> None:
    """Raise UsageError if the output folder `out` is an existing file."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; expected a folder")


@dataclass(frozen=True)
class Record:
    """Origin of the results in a folder. Results of different records are never mixed."""

    settings: Mapping[str, Any]  # settings that affect the results, by key
    inputs: Mapping[str, Any] = field(default_factory=dict)  # digests of the inputs, by name


def bind(
    folder: Path, kind: str, before: Record, now: Record, *, may_change: Container[str] = ()
) -> dict[str, str]:
    """Check that `folder`, which has results of the record `before`, may get results of `now`.

    Args:
        kind: the results of the folder, such as "a run".
        may_change: keys of settings that may differ.

    Returns:
        the settings that differ: key -> text with both values.

    Raises:
        UsageError: any other setting, or an input, differs.
    """
    one, two = before.inputs, now.inputs
    words = {(True, False): "is missing", (False, True): "is new", (True, True): "has changed"}
    inputs = [
        f"{name} {words[name in one, name in two]}"
        for name in sorted({*one, *two})
        if one.get(name) != two.get(name)
    ]
    if inputs:  # reported first: they may be the cause of other settings
        raise UsageError(
            f"{folder} holds {kind} with other inputs: {'; '.join(inputs[:4])}",
            hint="Restore the inputs, or choose another --out.",
        )
    one, two = before.settings, now.settings
    changed = {
        key: f"{key}={two.get(key)} (was {one.get(key)})"
        for key in {**one, **two}
        if one.get(key) != two.get(key)
    }
    wrong = [text for key, text in changed.items() if key not in may_change]
    if wrong:
        raise UsageError(
            f"{folder} holds {kind} with other settings: {'; '.join(wrong[:4])}", hint=START_ANEW
        )
    return changed


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def remove_leftovers(folder: Path, *, below: bool = True) -> None:
    """Delete temporary files that a killed process left in `folder` and, if `below`, under it.

    Restore a folder that the process was about to replace.
    """
    find = folder.rglob if below else folder.glob
    for path in [*find(".*.tmp"), *find(".*.old")]:
        name = path.with_name(path.name[1:].rsplit(".", 2)[0])
        if path.suffix == ".old" and path.exists() and not name.exists():
            path.rename(name)
        elif path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
