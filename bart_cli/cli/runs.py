"""`bart runs`: list, show, compare and watch runs."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from bart_cli.cli.console import print_error, print_json, print_rows, say
from bart_cli.cli.options import JsonOption, option
from bart_cli.errors import UsageError
from bart_cli.training.history import RunSummary, compare_runs, find_runs, read_run

app = typer.Typer(no_args_is_help=True, help="List, show, compare and watch runs.")

RunArgument = Annotated[Path, typer.Argument(help="Run folder.", metavar="RUN")]


@app.command("list")
def list_runs(
    folder: Annotated[
        Path, typer.Argument(help="Folder to search for runs.", metavar="FOLDER")
    ] = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """List runs with their state, loss and speed."""
    summaries, problems = [], []
    for run in find_runs(folder):
        try:
            summaries.append(read_run(run)[0])
        except UsageError as error:
            problems.append(error)
    if as_json:
        print_json([asdict(summary) for summary in summaries])
    else:
        heads = ("run", "task", "state", "step", "epoch", "loss", "best", "seq/s", "ends")
        print_rows([_cells(summary) for summary in summaries], *heads)
    for problem in problems:  # the other runs are listed
        print_error(problem)
    if problems:
        raise typer.Exit(1)


def _cells(summary: RunSummary) -> tuple[str, ...]:
    return (
        summary.run,
        summary.task,
        summary.state,
        f"{summary.step:,}/{summary.max_steps:,}",
        _epoch(summary, "/"),
        _number(summary.last_loss),
        _number(summary.best_validation_loss),
        _number(summary.sequences_per_second, 1),
        _time(summary.ends),
    )


@app.command()
def show(run: RunArgument, as_json: JsonOption = False) -> None:
    """Show one run: state, losses, speed, checkpoints, evaluations."""
    summary, _ = read_run(run)
    if as_json:
        print_json(asdict(summary))
    else:
        print_rows(_rows(summary))


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Two or more run folders.", metavar="RUN")],
    as_json: JsonOption = False,
) -> None:
    """Compare the results of runs and the settings in which they differ."""
    summaries = [read_run(run)[0] for run in runs]
    settings = compare_runs(runs)
    if as_json:
        print_json({"runs": [asdict(s) for s in summaries], "settings": settings})
        return
    columns = [dict(_rows(summary)) for summary in summaries]
    rows = [(name, *(column[name] for column in columns)) for name in columns[0]]
    rows += [(key, *map(str, values)) for key, values in settings.items()]
    print_rows(rows, "", *map(str, runs))


@app.command()
def watch(
    run: RunArgument,
    every: Annotated[int, option("Seconds between updates of the page.", min=1)] = 10,
    once: Annotated[bool, option("Write the page once and exit.", "--once")] = False,
    page: Annotated[Path | None, option("Page to write. Default: RUN/watch.html.", "--out")] = None,
) -> None:
    """Watch a run in a browser: curves, speed, validation and samples on one page.

    The page is a file that reloads itself and needs no network. The command ends with the run or on
    Ctrl-C; the page remains.
    """
    from bart_cli.training.watch import watch_run, write_run_page

    page = (page or run / "watch.html").absolute()
    summary = write_run_page(run, page, None if once else every)
    say(page.as_uri())
    if not once:
        summary = watch_run(run, page, every, summary)
    say(f"{summary.state} at step {summary.step:,} of {summary.max_steps:,}")


def _rows(summary: RunSummary) -> list[tuple[str, str]]:
    losses = (summary.first_loss, summary.last_loss)
    return [
        ("task", summary.task),
        ("state", summary.state),
        ("step", f"{summary.step:,} of {summary.max_steps:,}"),
        ("epoch", _epoch(summary, " of ")),
        ("ends", _time(summary.ends)),
        ("loss", " -> ".join(dict.fromkeys(map(_number, losses)))),
        ("best validation loss", _number(summary.best_validation_loss)),
        ("sequences/s", _number(summary.sequences_per_second, 1)),
        ("tokens/s", _number(summary.tokens_per_second, 0)),
        ("skipped steps", str(summary.skipped)),
        ("checkpoints", ", ".join(summary.checkpoints) or "none"),
        ("evaluations", ", ".join(summary.evaluations) or "none"),
    ]


def _epoch(summary: RunSummary, between: str) -> str:
    total = "" if summary.epochs is None else f"{between}{summary.epochs:g}"
    return _number(summary.epoch, 2) + total


def _time(text: str | None) -> str:
    return "-" if text is None else text[:16].replace("T", " ")


def _number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"
