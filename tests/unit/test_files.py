"""JSON that every parser accepts, for any content of a run."""

from __future__ import annotations

import json
from pathlib import Path

from bart_cli.files import strict_json


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
