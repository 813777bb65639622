"""Markdown pages as a list of blocks: language, text, and what a comment above says about running.

A block of `bash` is run unless a comment `<!-- only parsed: reason -->` stands above it.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
FENCE = re.compile(
    r"(?:^<!-- only parsed: (?P<reason>.+?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block. `reason`: why it is only parsed; None: it is run."""

    page: str
    line: int
    language: str
    text: str
    reason: str | None


def read_blocks(page: str) -> list[Block]:
    """Parse the blocks of a page, in order."""
    content = (ROOT / page).read_text(encoding="utf-8")
    return [
        Block(page, content.count("\n", 0, m.start()) + 1, m["language"], m["text"], m["reason"])
        for m in FENCE.finditer(content)
    ]


@dataclass(frozen=True)
class Command:
    """A program call: its arguments, the source of its input and the target of its output."""

    words: tuple[str, ...]
    from_pipe: bool
    out: str | None


def commands(text: str) -> list[Command]:
    """Parse the calls of a block, in order, with comments, `\\`, `&&`, `|`, `>` and `&`."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        call: list[str] = []
        from_pipe = False
        out = None
        rest = iter([*words, "&&"])
        for word in rest:
            if word == ">":
                out = next(rest)
            elif word in ("&&", "|", "&"):
                if call:
                    found.append(Command(tuple(call), from_pipe, "|" if word == "|" else out))
                call, out, from_pipe = [], None, word == "|"
            else:
                call.append(word)
    return found
