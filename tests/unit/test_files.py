"""Atomic writing on a full disk; JSON that every parser accepts."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from bart_cli.files import atomic_file, atomic_folder, no_such, strict_json, write_text


def refuse(word: str) -> object:
    raise AssertionError(f"{word} is not JSON")


def test_non_finite_numbers_become_null_at_any_depth() -> None:
    inf, nan = float("inf"), float("nan")
    content = {"a": [1, nan, (inf, {"b": -inf})], "c": Path("x"), "d": True, "e": None}
    assert json.loads(strict_json(content), parse_constant=refuse) == {
        "a": [1, None, [None, {"b": None}]],
        "c": "x",
        "d": True,
        "e": None,
    }


def test_a_full_disk_names_the_file_and_leaves_nothing_behind(tmp_path: Path) -> None:
    for write in (atomic_file, atomic_folder):
        with pytest.raises(OSError, match="No space left") as caught, write(tmp_path / "x"):
            raise OSError(errno.ENOSPC, "No space left on device")
        assert caught.value.filename == str(tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_a_pipe_is_written_and_a_link_is_followed(tmp_path: Path) -> None:
    """Renaming a file over /dev/stdout would remove the device."""
    os.mkfifo(pipe := tmp_path / "pipe")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_text(pipe, "one")
    assert os.read(reader, 9) == b"one"
    os.close(reader)
    assert pipe.is_fifo()
    (tmp_path / "link").symlink_to("below/file")
    write_text(tmp_path / "link", "two")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "below/file").read_text() == "two"


def test_a_pipe_is_not_called_missing(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    assert "pipe or device; expected a file, which can be read more" in no_such(pipe).message
    assert no_such(tmp_path / "none", "dump").message == f"no such dump: {tmp_path}/none"
