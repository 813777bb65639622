"""Errors that users see: one line that describes the problem, and a hint how to solve it."""

import difflib
from collections.abc import Callable, Iterable
from functools import partial

START_ANEW = "Choose another --out, or delete that folder."  # hint: the folder has other results


class BartError(Exception):
    """A problem that the user can solve. The command line prints it without a traceback.

    Args:
        message: one line that says what is wrong, where, and what is allowed.
        hint: how to solve it, unless that is obvious; an imperative.
        exit_code: 1 for a failed run, 2 for incorrect usage.
    """

    def __init__(self, message: str, *, hint: str | None = None, exit_code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions are pickled to pass between processes (Dask workers, training ranks).
        kind = partial(type(self), hint=self.hint, exit_code=self.exit_code)
        return kind, (self.message,)


class UsageError(BartError):
    """A wrong option, value, key or file name, detected before any work. Exit code 2."""

    def __init__(self, message: str, *, hint: str | None = None, exit_code: int = 2) -> None:
        super().__init__(message, hint=hint, exit_code=exit_code)


def did_you_mean(
    word: str, known: Iterable[str], part: Callable[[str], str] = lambda name: name.lstrip("-")
) -> str | None:
    """Return the hint `Did you mean 'x'?` for the closest known word, or None if none is close.

    `part` returns the part of a word to compare. Of words with equal parts, the last counts.
    """
    plain = {part(name): name for name in known}
    near = difflib.get_close_matches(part(word), plain, n=1, cutoff=0.6)
    return f"Did you mean '{plain[near[0]]}'?" if near else None


def first_line(error: BaseException) -> str:
    """Return the first line of an error message, shortened; the type name if it is empty."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
