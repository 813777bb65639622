"""Text from elsewhere made fit for a terminal."""

from __future__ import annotations

import re

# C0 and C1 control characters but tab and newline (an escape sequence begins with one), and lone
# surrogates, which have no UTF-8 form.
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def printable(text: str) -> str:
    """The text with U+FFFD in place of what would command a terminal or cannot be encoded."""
    return UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)
