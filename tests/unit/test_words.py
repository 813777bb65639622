"""Every sentence of the package and its documentation follows the house style."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bart_cli.config import commands, data, generation, model, run, training
from bart_cli.config.base import Section

ROOT = Path(__file__).parents[2]
TRANSLATED = (
    "whole road",
    "it is there when it is whole",
    "goes on",
    "going on",
    "is there already",
    "are there already",
    "be had",
    "allowed are",
    "checkpoint of the last steps",
    "lost another process",
    ", not that of the",
    "is no folder of",
    "is no run of",
    "blank lines part documents",
    "whose text came before",
    "what validation compares",
    "of weights, dropout, order and noise",
    "peak, after warm-up",
    "what is there",
    "what is missing",
    "what it needs",
    "the asked",
    "what is told",
    "has an answer in docs",
    "spares the",
    "must invent text",
    "nothing is kept of",
    "of no known",
    "are not those of",
    "does not divide among",
    "does not go with",
    "left out",
    "leaves out",
    "data set of the hub",
    "model of the hub",
    "whole number",
    "document a line",
    "sentence a line",
    "summary a line",
    "what stands",
    "is not there",
)
BRITISH = (
    *("tokenis", "normalis", "initialis", "optimise", "optimisation", "summaris", "recognis"),
    *("organis", "serialis", "minimis", "maximis", "vectoris", "quantis", "utilis", "colour"),
    *("behaviour", "neighbour", "favour", "licence", "labelled", "modelled"),
)


def forbidden(text: str) -> list[str]:
    """Find phrases that sound translated, and British spellings, across line breaks of code."""
    text = re.sub(r'"\s*\n\s*f?"', "", text)  # a string in several parts
    text = re.sub(r"\n\s*#", " ", text)  # a comment of several lines
    plain = " ".join(text.lower().split())
    return [phrase for phrase in (*TRANSLATED, *BRITISH) if phrase in plain]


def test_every_sentence_follows_the_style() -> None:
    code = [p for p in (ROOT / "bart_cli").rglob("*.py") if "sample" not in p.parts]  # it is data
    pages = [*(ROOT / "bart_cli").rglob("*.jinja"), ROOT / "bart_cli" / "serve" / "page.html"]
    docs = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    found = {p: phrases for p in (*code, *pages, *docs) if (phrases := forbidden(p.read_text()))}
    assert not found, "\n".join(f"{path}: {', '.join(found[path])}" for path in found)


@pytest.mark.parametrize(
    "source",
    [
        '"is there "\n    f"already"',
        '"""What is\n    there."""',
        "# one that\n# goes on where",
        "Colour",
    ],
)
def test_a_forbidden_phrase_is_found(source: str) -> None:
    assert forbidden(source)


def test_a_description_can_begin_a_sentence() -> None:
    """Help texts once began with "Cpu, cuda", "Fp32" and "MBART"."""
    kinds = {
        kind
        for module in (commands, data, generation, model, run, training)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Section)
    }
    texts = [f.description for kind in kinds for f in kind.model_fields.values() if f.description]
    assert len(texts) > 100
    names = re.compile(r"(cpu|cuda|text, json|[a-z]+[A-Z0-9])")
    assert not [text for text in texts if names.match(text)]
