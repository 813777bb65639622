"""The files and names that CONTRIBUTING.md sends a reader to exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_every_file_exists() -> None:
    named = set(re.findall(r"`([\w/.-]+\.(?:py|md))`", PAGE))
    assert len(named) > 20
    folders = [ROOT, ROOT / "bart_cli", ROOT / "bart_cli" / "data" / "download"]
    assert not [name for name in named if not any((f / name).exists() for f in folders)]


def test_every_answer_names_what_its_file_defines() -> None:
    table = PAGE.partition("| question | answer |")[2].partition("\n\n")[0]
    found = re.findall(r"`(\w+(?:\.\w+)?)` \(`([\w/]+\.py)`", table)
    assert len(found) > 5
    for name, file in found:
        text = (ROOT / "bart_cli" / file).read_text(encoding="utf-8")
        for part in name.split("."):
            assert re.search(rf"(?:def|class) {part}\b|^{part} = ", text, re.MULTILINE), (
                name,
                file,
            )
