"""Atomic writing on a full disk; JSON that every parser accepts."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from bart_cli.files import atomic_file, atomic_folder, strict_json


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
