"""Report progress: engines call a `Reporter`, and the command line displays it, safely.

For use as a library, the base class shows no progress and logs messages with `logging`.
`ConsoleReporter` (`bart_cli/cli/console.py`) draws bars on a terminal and prints lines elsewhere.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

log = logging.getLogger("bart")


class Task:
    """The progress of a running task."""

    def advance(self, amount: float = 1, detail: str = "") -> None:
        """Add `amount` to the completed part, and show `detail` next to the bar."""

    def show(self, values: Mapping[str, str]) -> None:
        """Show named values, which remain until the next call."""


class Reporter:
    """The receiver of progress, messages and warnings from an engine."""

    @contextmanager
    def task(self, name: str, total: float | None = None, unit: str = "") -> Iterator[Task]:
        """Show a progress bar during the block.

        Args:
            total: amount of work; None if unknown.
            unit: unit of `total`, such as "steps", or "B" for bytes.
        """
        yield Task()

    def info(self, text: str) -> None:
        """Show a message."""
        log.info(text)

    def warn(self, text: str) -> None:
        """Show a warning."""
        log.warning(text)


# C0 and C1 control characters except tab and newline (escape sequences begin with one), and lone
# surrogates, which UTF-8 cannot encode.
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def printable(text: str) -> str:
    """Replace control characters and characters that cannot be encoded by U+FFFD."""
    return UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)
