"""The error messages quoted in docs/troubleshooting.md exist in the package."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import bart_cli

PAGE = Path(__file__).parents[3] / "docs" / "troubleshooting.md"
OURS = re.compile(r"^\| `([^`]+)` ", re.MULTILINE)


def test_every_quoted_error_occurs_in_the_package() -> None:
    sources = Path(bart_cli.__file__).parent.rglob("*.py")
    texts = [
        node.value
        for path in sources
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    quoted = OURS.findall(PAGE.read_text(encoding="utf-8"))
    assert len(quoted) > 15
    for quote in quoted:
        for part in quote.split("…"):  # placeholder for the variable part
            assert any(part.strip() in text for text in texts), quote
