"""Normalize the text that a model reads, in the same way for every command."""

from __future__ import annotations


def source_text(text: str, prefix: str = "") -> str:
    """Strip a text and prepend the model's prefix; a blank text becomes the empty string.

    Inner white space is kept, as in `transformers` and the published fine-tuned models (XSum,
    SAMSum): the line breaks of a dialogue separate its speakers.
    """
    text = text.strip()
    return (prefix + text).strip() if text else ""
