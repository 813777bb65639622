"""The log of a run: `metrics.jsonl`, TensorBoard, trackers, and the curves to plot."""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bart_cli.errors import UsageError
from bart_cli.figures import Points
from bart_cli.files import parsed_lines, strict_json, write_text
from bart_cli.training.checkpoint import writing

if TYPE_CHECKING:
    from bart_cli.training.trackers import Trackers

Row = dict[str, Any]
BOARD = "tensorboard"  # folder
SAMPLES = "samples.json"  # step, articles and summaries of the last validation that decoded


class MetricsLog:
    """Append rows to `RUN/metrics.jsonl`, to TensorBoard and to the trackers.

    Args:
        step: step to resume from; later rows are deleted.
        board: also write RUN/tensorboard.
    """

    def __init__(
        self, run: Path, step: int, *, board: bool = True, trackers: Trackers | None = None
    ) -> None:
        self._run, self._path = run, run / "metrics.jsonl"
        self._board, self._trackers = None, trackers
        kept = [row for row in read_metrics(run) if row["step"] <= step]
        with writing(self._path, run):
            write_text(self._path, "".join(strict_json(row) + "\n" for row in kept))
        if board:
            with writing(run / BOARD, run):
                from torch.utils.tensorboard import SummaryWriter

                # TensorBoard writes in a thread and raises the thread's error in its next call.
                threading.excepthook = _report_unless_os_error
                self._board = SummaryWriter(str(run / BOARD), purge_step=step + 1)

    def write(self, row: Row) -> None:
        """Append a row, which must have a `step`. Non-finite numbers are only written to the file.

        Raises:
            BartError: the disk is full.
        """
        with writing(self._path, self._run), self._path.open("a", encoding="utf-8") as file:
            file.write(strict_json(row) + "\n")
        if self._board is not None:
            with writing(self._run / BOARD, self._run):
                for name, value in scalars(row).items():
                    self._board.add_scalar(name, value, row["step"])
        if self._trackers is not None:
            self._trackers.log(row)

    def keep_samples(self, step: int, samples: Sequence[Mapping[str, str]]) -> None:
        """Replace the samples with those of this step."""
        path = self._run / SAMPLES
        with writing(path, self._run):
            content = strict_json({"step": step, "samples": samples}, ascii_only=True)
            write_text(path, content + "\n")

    def close(self) -> None:
        """Flush TensorBoard."""
        if self._board is not None:
            with writing(self._run / BOARD, self._run):
                self._board.close()


def scalars(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the finite numbers of a row, without its step."""
    return {
        name: value
        for name, value in row.items()
        if name != "step" and isinstance(value, int | float) and math.isfinite(value)
    }


def _report_unless_os_error(arguments: threading.ExceptHookArgs) -> None:
    if not isinstance(arguments.exc_value, OSError):
        threading.__excepthook__(arguments)


def read_metrics(run: Path) -> list[Row]:
    """Read all rows of a run, in order, except a last line truncated by a crash.

    Numbers that are not finite are null in the file and NaN here.

    Raises:
        UsageError: a line is invalid.
    """
    path = run / "metrics.jsonl"
    # Read once: a running process appends rows.
    content = path.read_bytes() if path.is_file() else b""
    rows: list[Row] = []
    end = 0
    for row, after in parsed_lines(io.BytesIO(content)):
        if not isinstance(row, dict) or not isinstance(row.get("step"), int | float):
            break
        rows.append({k: math.nan if v is None else v for k, v in row.items()})
        end = after
    if b"\n" in content[end:]:
        raise UsageError(
            f"{path}, line {len(rows) + 1}: not a row of a run's log",
            hint="Delete that line. The log is not needed to resume.",
        )
    return rows


def first_and_last_loss(rows: list[Row]) -> tuple[float | None, float | None]:
    """Return the first and the last finite training loss; None if there is none."""
    losses = [row["loss"] for row in rows if math.isfinite(row.get("loss", math.nan))] or [None]
    return losses[0], losses[-1]


def training_curves(rows: list[Row]) -> dict[str, dict[str, Points]]:
    """Return loss, learning rate and gradient norm over steps, for `draw_curves`."""
    curves = {
        "loss": curves_of(rows, ["loss", "validation_loss"]),
        "learning rate": curves_of(rows, ["learning_rate"]),
        "gradient norm": curves_of(rows, ["gradient_norm"]),
    }
    return {title: lines for title, lines in curves.items() if lines}


def curves_of(rows: list[Row], names: Sequence[str]) -> dict[str, Points]:
    """Return the curves of these scalars over steps, without those that the log lacks."""
    curves: dict[str, Points] = {}
    for name in names:
        if chosen := [row for row in rows if name in row]:
            points = [row["step"] for row in chosen], [row[name] for row in chosen]
            curves[name.replace("_", " ")] = points
    return curves
