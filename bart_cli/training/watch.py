"""Write `watch.html`: the state of a run as one page, updated while it trains.

In: a run folder. Out: the page, which reloads itself until the run has ended.
"""

import os
import time
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bart_cli.config.presets import flatten
from bart_cli.figures import HEIGHT, WIDTH, plot
from bart_cli.pages import write_page
from bart_cli.training.history import RunSummary, read_run, run_settings
from bart_cli.training.metrics import SAMPLES, curves_of, training_curves
from bart_cli.training.resume import read_record

SHOWN = 20  # newest validations
SPEEDS = {"sequences per second": "sequences_per_second", "tokens per second": "tokens_per_second"}


def watch_run(run: Path, page: Path, every: int, summary: RunSummary) -> RunSummary:
    """Write the page again every `every` seconds until the run ends or a signal arrives."""
    try:
        while summary.state == "running":
            time.sleep(every)
            summary = write_run_page(run, page, every)
        return summary
    except KeyboardInterrupt:
        return write_run_page(run, page, None)


def write_run_page(run: Path, page: Path, every: int | None = None) -> RunSummary:
    """Write the page once; it reloads itself after `every` seconds while the run is running."""
    summary, rows = read_run(run)
    validations = [row for row in rows if "validation_loss" in row]
    scores = list(dict.fromkeys(name for row in validations for name in row if name != "step"))
    curves = training_curves(rows)
    curves |= {title: curves_of(rows, [name]) for title, name in SPEEDS.items()}
    curves |= {name: curves_of(rows, [name]) for name in scores if name != "validation_loss"}
    samples = read_record(run / SAMPLES)
    write_page(
        page,
        "run.html.jinja",
        summary=summary,
        every=every if summary.state == "running" else None,
        now=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %Z"),
        cards=_cards(summary),
        plots=[p for title, lines in curves.items() if lines and (p := plot(title, lines))],
        scores=scores,
        validations=validations[: -SHOWN - 1 : -1],
        # Samples of steps that were undone by a rollback are not shown.
        samples=samples if samples.get("step", summary.step + 1) <= summary.step else None,
        reports={  # name -> link relative to the page
            name: quote(os.path.relpath(file.resolve(), page.resolve().parent))
            for name in summary.evaluations
            if (file := run / name / "report.html").is_file()
        },
        settings=list(flatten(run_settings(run))),
        width=WIDTH,
        height=HEIGHT,
    )
    return summary


def _cards(summary: RunSummary) -> dict[str, str]:
    """Collect the numbers of a run by name, without those that are None."""
    found: dict[str, tuple[str, Any]] = {
        f"step of {summary.max_steps:,}": ("{:,}", summary.step),
        "epoch": ("{:.2f}", summary.epoch),
        "loss": ("{:.4f}", summary.last_loss),
        "best validation loss": ("{:.4f}", summary.best_validation_loss),
        "sequences per second": ("{:,.1f}", summary.sequences_per_second),
        "tokens per second": ("{:,.0f}", summary.tokens_per_second),
        "skipped steps": ("{:,}", summary.skipped or None),
        "ends": ("{}", summary.ends and summary.ends[5:16].replace("T", " ")),
    }
    return {name: form.format(value) for name, (form, value) in found.items() if value is not None}
