"""Print results to standard output, and progress and errors to standard error, with rich."""

import logging
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.columns import Columns
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from bart_cli.errors import BartError
from bart_cli.files import strict_json
from bart_cli.progress import Reporter, Task, printable

PIPE_WIDTH = 110  # columns of tables in files; rich would assume 80 and truncate them
LOG_SECONDS = 10.0  # between progress lines if standard error is not a terminal

# Emoji codes and markup are off: print ":x:" and "[x]" in paths and texts literally.
out = Console(
    highlight=False, emoji=False, markup=False, width=None if sys.stdout.isatty() else PIPE_WIDTH
)
err = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)


_voice = {"quiet": False, "verbose": False}


def set_voice(*, quiet: bool, verbose: bool) -> None:
    """Set the verbosity of standard error for this process."""
    _voice.update(quiet=quiet, verbose=verbose)
    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", force=True)


def print_json(document: object) -> None:
    """Print a JSON document to standard output."""
    sys.stdout.write(strict_json(document, indent=2) + "\n")


def say(text: str, style: str = "") -> None:
    """Print a line of any length, which only a terminal wraps."""
    out.print(Text(printable(text), style), soft_wrap=True)


def print_rows(rows: Iterable[Sequence[str | Text]], *header: str) -> None:
    """Print a table without borders."""
    table = Table(*header, box=None, pad_edge=False, show_header=bool(header))
    for row in rows:
        table.add_row(*(printable(cell) if isinstance(cell, str) else cell for cell in row))
    out.print(table)


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table of numbers with a title. Words are never truncated, whatever the width."""
    table = Table(box=None, pad_edge=False)
    columns = list(zip(header, *rows, strict=True))
    widths = []
    for number, (head, *cells) in enumerate(columns):
        width = max(map(len, [*head.split(), *cells]), default=1)
        widths.append(width)
        table.add_column(head, justify="right" if number else "left", min_width=width)
    for row in rows:
        table.add_row(*row)
    say(title, "bold")
    narrowest = sum(widths) + 2 * len(widths)
    out.print(table, width=max(out.width, narrowest), crop=False, no_wrap=False)
    out.print()


def print_error(error: BartError) -> None:
    """Print `error: …`, the hint if there is one, and with --verbose the traceback."""
    if _voice["verbose"] and error.__traceback__ is not None:
        err.print(printable("".join(traceback.format_exception(error))), markup=False)
    err.print(f"[bold red]error:[/bold red] {escape(printable(error.message))}")
    if error.hint:
        err.print(f"[bold]hint:[/bold] {escape(printable(error.hint))}")


class _BarsAndNumbers(Progress):
    """Progress bars, with a grid of named values below."""

    numbers: Mapping[str, str] = {}

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        if self.numbers:
            cells = [
                f"[dim]{name}[/dim] [bold]{value}[/bold]" for name, value in self.numbers.items()
            ]
            yield Columns(cells, padding=(0, 3))


class ConsoleReporter(Reporter):
    """A reporter on standard error: bars on a terminal, else lines, only warnings with --quiet."""

    def __init__(self) -> None:
        self._quiet = _voice["quiet"]
        self._progress: _BarsAndNumbers | None = None

    @contextmanager
    def task(self, name: str, total: float | None = None, unit: str = "") -> Iterator[Task]:
        """See Reporter.task. Several tasks may have bars at the same time."""
        if self._quiet:
            yield Task()
            return
        if not err.is_terminal:
            lines = _Lines(name, total, unit)
            yield lines
            lines.end()
            return
        outermost = self._progress is None
        if self._progress is None:
            self._progress = _BarsAndNumbers(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(bar_width=30),
                MofNCompleteColumn(),
                TextColumn("{task.fields[unit]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[detail]}", style="cyan"),
                console=err,
            )
            self._progress.start()
        index = self._progress.add_task(escape(printable(name)), total=total, unit=unit, detail="")
        try:
            yield _Bar(self._progress, index)
        finally:
            if outermost:
                self._progress.stop()
                self._progress = None
            else:
                self._progress.remove_task(index)

    def info(self, text: str) -> None:
        if not self._quiet:
            err.print(escape(printable(text)))

    def warn(self, text: str) -> None:
        err.print(f"[yellow]warning:[/yellow] {escape(printable(text))}")


class _Bar(Task):
    def __init__(self, progress: _BarsAndNumbers, index: TaskID) -> None:
        self._progress, self._index = progress, index

    def advance(self, amount: float = 1, detail: str = "") -> None:
        fields: Mapping[str, str] = {"detail": detail} if detail else {}
        self._progress.update(self._index, advance=amount, **fields)  # type: ignore[arg-type]

    def show(self, values: Mapping[str, str]) -> None:
        self._progress.numbers = dict(values)


class _Lines(Task):
    """Print a line every LOG_SECONDS during a task, and one at its end."""

    def __init__(self, name: str, total: float | None, unit: str) -> None:
        self._name, self._total, self._unit = name, total, unit
        self._done, self._detail = 0.0, ""
        self._begin = self._last = time.monotonic()

    def advance(self, amount: float = 1, detail: str = "") -> None:
        self._done += amount
        self._detail = detail or self._detail
        now = time.monotonic()
        if now - self._last >= LOG_SECONDS:
            self._last = now
            self._print()

    def show(self, values: Mapping[str, str]) -> None:
        self._detail = "  ".join(f"{name} {value}" for name, value in values.items())

    def end(self) -> None:
        """Print the last line, with the amount of work done and the time taken."""
        self._print(f" in {time.monotonic() - self._begin:.1f} s")

    def _print(self, tail: str = "") -> None:
        total = "" if self._total is None else f"/{self._total:,.0f}"
        unit = f" {self._unit}" if self._unit else ""
        detail = f"  {self._detail}" if self._detail else ""
        line = f"{self._name}: {self._done:,.0f}{total}{unit}{tail}{detail}"
        err.print(escape(printable(line)))
