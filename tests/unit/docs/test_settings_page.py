"""docs/settings.md matches the configuration."""

from __future__ import annotations

import runpy
from pathlib import Path

SCRIPT = Path(__file__).parents[3] / "docs" / "settings.py"


def test_the_page_is_up_to_date() -> None:
    page = runpy.run_path(str(SCRIPT))["page"]()
    assert SCRIPT.with_suffix(".md").read_text(encoding="utf-8") == page, "run `make settings`"
