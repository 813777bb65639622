"""Extras match pyproject.toml, and install commands are right in a clone and outside."""

from __future__ import annotations

import importlib.metadata
import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest

from bart_cli import extras
from bart_cli.errors import BartError

PROJECT = tomllib.loads((extras.CLONE / "pyproject.toml").read_text())["project"]


def test_the_table_names_the_packages_of_each_extra() -> None:
    declared = PROJECT["optional-dependencies"]
    assert set(extras.EXTRAS) <= set(declared)
    for name, extra in extras.EXTRAS.items():
        packages = {re.match(r"[\w-]+", line)[0] for line in declared[name]} - {"bart-cli"}
        assert packages == set(extra.packages)
    assert declared["all"] == ["bart-cli[data,eval,serve]"]


def test_installed_extras_give_no_error() -> None:
    extras.require("this test", "data", "eval")  # raises otherwise


def test_a_missing_module_is_reported_with_the_command_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "rouge_score", None)
    with pytest.raises(BartError) as caught:
        extras.require("bart evaluate", "data", "eval", otherwise="do without")
    assert caught.value.message == (
        "bart evaluate needs the extra 'eval' (not installed): no module rouge_score"
    )
    assert caught.value.hint is not None
    assert caught.value.hint.endswith("(or do without)")
    words = shlex.split(caught.value.hint)
    assert words[:5] == [sys.executable, "-m", "pip", "install", "-e"]
    assert words[5] == f"{extras.CLONE}[eval]"


def test_outside_a_clone_the_packages_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    required = [
        "torch>=2.10",
        "dask[distributed]>=2024.8; extra == 'data'",
        'rouge-score>=0.1.2; extra == "eval"',
    ]
    monkeypatch.setattr(extras, "CLONE", tmp_path)
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: required)
    words = shlex.split(extras.install_line("data"))
    assert words[1:] == ["-m", "pip", "install", "dask[distributed]>=2024.8"]
    assert shlex.split(extras.install_line("eval", "data"))[4:] == [
        "dask[distributed]>=2024.8",
        "rouge-score>=0.1.2",
    ]


def test_an_import_that_fails_is_translated_for_modules_of_extras_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "dask", None)
    monkeypatch.setitem(sys.modules, "distributed", None)
    error = extras.from_import_error(ModuleNotFoundError(name="distributed.comm"), "bart data")
    assert error is not None
    assert error.message.startswith("bart data needs the extra 'data'")
    assert extras.from_import_error(ModuleNotFoundError(name="torchvision"), "bart data") is None
    assert extras.from_import_error(ModuleNotFoundError(name="requests"), "bart data") is None
