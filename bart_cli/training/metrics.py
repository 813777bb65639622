"""The log of a run: `metrics.jsonl`, TensorBoard, trackers, and the curves to plot."""

from __future__ import annotations

import io
import math
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bart_cli.data.batch import IGNORE, Batch
from bart_cli.errors import UsageError
from bart_cli.figures import Points
from bart_cli.files import parsed_lines, strict_json, write_text
from bart_cli.runtime.flops import peak_flops, training_flops
from bart_cli.training.checkpoint import writing

if TYPE_CHECKING:
    from bart_cli.training.loop import Job
    from bart_cli.training.trackers import Trackers

Row = dict[str, Any]
BOARD = "tensorboard"  # folder
SAMPLES = "samples.json"  # step, articles and summaries of the last validation that decoded


class MetricsLog:
    """Append rows to `RUN/metrics.jsonl`, to TensorBoard (if `board`) and to the trackers.

    Rows after `step`, from which the run resumes, are deleted.
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
        """Append a row, which must have a `step`. Only the file gets non-finite numbers."""
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


class Meter:
    """Measure speed, padding and MFU (model FLOPs utilization) since the last row of the log."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._peak = peak_flops(job.world.device, job.training.precision)
        self._begin = time.monotonic()
        self._reset()

    def add(self, micro: list[Batch], target_tokens: int) -> None:
        """Count this rank's micro-batches of a step."""
        self._steps += 1
        self._real += target_tokens + sum(int(batch.source_mask.sum()) for batch in micro)
        self._padded += sum(batch.source.numel() + batch.labels.numel() for batch in micro)
        if self._peak is not None:
            for batch in micro:
                lengths = batch.source_mask.sum(1), (batch.labels != IGNORE).sum(1)
                self._flops += training_flops(self._job.model.config, *lengths)

    def row(self, rate: float, norm: float) -> Row:
        """Return the row of the log, and start the next interval."""
        job, progress = self._job, self._job.progress
        seconds = time.monotonic() - self._last
        row: Row = {
            "step": progress.step,
            "samples": progress.samples,
            "loss": progress.loss_sum / progress.loss_steps if progress.loss_steps else math.nan,
            "learning_rate": rate,
            "gradient_norm": norm,
            "padding": 1 - self._real / self._padded,
            "skipped": progress.skipped,
            "sequences_per_second": self._steps * job.training.global_batch / seconds,
            "tokens_per_second": self._real * job.world.size / seconds,
            "seconds": time.monotonic() - self._begin,
        }
        if job.samples_per_epoch is not None:
            row["epoch"] = progress.samples / job.samples_per_epoch
        if self._peak is not None:
            row["mfu"] = self._flops / seconds / self._peak
        progress.loss_sum, progress.loss_steps = 0.0, 0
        self._reset()
        return row

    def _reset(self) -> None:
        self._last = time.monotonic()
        self._steps = self._real = self._padded = 0
        self._flops = 0.0


def headline(row: Row) -> dict[str, str]:
    """Shorten a row of the log for display beside the progress bar."""
    shown = {
        "loss": f"{row['loss']:.4f}",
        "lr": f"{row['learning_rate']:.2e}",
        "norm": f"{row['gradient_norm']:.2f}",
        "seq/s": f"{row['sequences_per_second']:.1f}",
        "tokens/s": f"{row['tokens_per_second']:,.0f}",
        "padding": f"{row['padding']:.1%}",
    }
    if "mfu" in row:
        shown["MFU"] = f"{row['mfu']:.1%}"
    if row["skipped"]:
        shown["skipped"] = str(row["skipped"])
    return shown


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
