"""Fixtures of the tests that train."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the picture of the curves: it takes longer than a run of a few steps."""
    monkeypatch.setattr("bart_cli.training.run.draw_curves", lambda path, curves: None)
