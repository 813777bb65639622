"""Graceful stop: SIGTERM, Ctrl-C or the time limit end a run between two steps."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

from bart_cli.errors import BartError

ECHO_SECONDS = 1.0
TIME_LIMIT = "the time limit"


def stopped(reason: str, rest: str, *, hint: str = "Rerun the command to resume.") -> BartError:
    """Make the error of a command that a signal (exit code as in shells) or TIME_LIMIT stopped."""
    code = 0 if reason == TIME_LIMIT else 128 + signal.Signals[reason]
    return BartError(f"stopped by {reason}{rest}", hint=hint, exit_code=code)


class _Cut(BaseException):
    """Leaves the block of `StopRequest.cutting`."""


class StopRequest:
    """Context manager that records the first signal; a second Ctrl-C raises KeyboardInterrupt."""

    def __init__(self, minutes: float | None) -> None:
        self._deadline = None if minutes is None else time.monotonic() + 60 * minutes
        self.signal: int | None = None  # the last one
        self._noted = 0.0  # time of the signal
        self._cuts = False
        self._previous: dict[int, object] = {}

    @property
    def reason(self) -> str | None:
        """Name of the signal or "the time limit" if a stop was requested, else None."""
        if self.signal is not None:
            return signal.Signals(self.signal).name
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return TIME_LIMIT
        return None

    @contextmanager
    def cutting(self) -> Iterator[None]:
        """Leave the block as soon as a stop is requested, even in the middle of a statement.

        This is for long work without side effects or communication between ranks, such as decoding.
        Check `reason` first: a stop requested before the block does not leave it.
        """
        try:
            try:
                self._cuts = True
                yield
            finally:
                self._cuts = False
        except _Cut:
            pass

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._note)
        if self._deadline is not None:
            self._previous[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._cut)
            left = max(self._deadline - time.monotonic(), 1e-3)
            signal.setitimer(signal.ITIMER_REAL, left)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        # A launcher forwards Ctrl-C to its workers, which may have received it from the terminal.
        if self.signal == number == signal.SIGINT and now - self._noted > ECHO_SECONDS:
            raise KeyboardInterrupt
        self.signal, self._noted = number, now
        self._cut(number, frame)

    def _cut(self, number: int, frame: FrameType | None) -> None:
        if self._cuts:
            self._cuts = False
            raise _Cut
