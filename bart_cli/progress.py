"""How engines tell what they are doing: they call a `Reporter`; the command line shows it.

The base class here is silent but for the standard `logging` module, so that the engines can be used
as a library; `bart_cli.cli.console.RichReporter` draws bars on a terminal and log lines elsewhere.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

log = logging.getLogger("bart")


class Task:
    """One thing that is waited for."""

    def advance(self, amount: float = 1, detail: str = "") -> None:
        """`amount` more of the total is done; `detail` is a short text beside the bar."""

    def show(self, values: Mapping[str, str]) -> None:
        """Numbers to watch, by name; they stay until the next ones."""

    def set_total(self, total: float) -> None:
        """The total became known (or changed)."""


class Reporter:
    """Where an engine sends progress, notes and warnings."""

    @contextmanager
    def task(self, name: str, total: float | None = None, unit: str = "") -> Iterator[Task]:
        """A bar for the length of the block. `total` None: not known. `unit`: '', 'B', 'steps' …"""
        yield Task()

    def info(self, text: str) -> None:
        """A line that the user may want to read."""
        log.info(text)

    def warn(self, text: str) -> None:
        """A line that the user should act on."""
        log.warning(text)
