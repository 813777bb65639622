"""Make untrusted text safe to print on a terminal."""

from __future__ import annotations

import re

# C0 and C1 control characters except tab and newline (escape sequences begin with one), and lone
# surrogates, which UTF-8 cannot encode.
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def printable(text: str) -> str:
    """Replace control characters and characters that cannot be encoded by U+FFFD."""
    return UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)
