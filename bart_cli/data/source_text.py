"""The text that a model reads, from a text as given: one rule for every command."""

from __future__ import annotations


def source_text(text: str, prefix: str = "") -> str:
    """The text without white space around it, behind the model's prefix; empty stays empty.

    White space inside is kept, as `transformers` and the published fine-tunings (XSum, SAMSum) keep
    it: the line breaks of a dialogue tell the speakers apart.
    """
    text = text.strip()
    return (prefix + text).strip() if text else ""
