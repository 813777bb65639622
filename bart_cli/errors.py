"""The one error type that users see: a line that says what and where, and a hint what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

START_ANEW = "Choose another --out, or delete that folder."  # hint: the folder has other results


class BartError(Exception):
    """A problem that the user can act on. The command line prints it without a traceback.

    Args:
        message: one line: what is wrong, where, and what is allowed.
        hint: what to do about it, if that is not obvious.
        exit_code: 1 when the run failed, 2 when the command was used wrongly.
    """

    def __init__(self, message: str, *, hint: str | None = None, exit_code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions cross process borders (Dask workers, training ranks) by pickling.
        return _rebuild, (type(self), self.message, self.hint, self.exit_code)


class UsageError(BartError):
    """A wrong option, value, key or file name: nothing was started. Exit code 2."""

    def __init__(self, message: str, *, hint: str | None = None, exit_code: int = 2) -> None:
        super().__init__(message, hint=hint, exit_code=exit_code)


def _rebuild(kind: type[BartError], message: str, hint: str | None, exit_code: int) -> BartError:
    return kind(message, hint=hint, exit_code=exit_code)


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The hint `Did you mean 'x'?` for the nearest of the known words, None when none is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"Did you mean '{near[0]}'?" if near else None


def first_line(error: BaseException) -> str:
    """The first line of an error's text, shortened; the name of its type if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
