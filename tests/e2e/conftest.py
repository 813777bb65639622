"""Uninterrupted runs, made once for all tests that compare with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.runs import finish, write_config
from tests.unit.training.test_runs import shards  # noqa: F401


@pytest.fixture(scope="session")
def noisy(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """Settings with dropout, which a resumed run has to draw again."""
    return write_config(shards, tmp_path_factory.mktemp("noisy") / "config.yaml", 0.1)


@pytest.fixture(scope="session")
def plain(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """Settings without dropout, which would differ between ranks."""
    return write_config(shards, tmp_path_factory.mktemp("plain") / "config.yaml", 0.0)


@pytest.fixture(scope="session")
def whole_plain(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `plain` in one process."""
    run = tmp_path_factory.mktemp("whole") / "run"
    finish(plain, run)
    return run
