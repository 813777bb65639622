"""What a run tells of itself: `metrics.jsonl`, TensorBoard, and a picture of the curves."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from bart_cli.files import strict_json, write_text

Row = dict[str, Any]


class MetricsLog:
    """Appends rows to `RUN/metrics.jsonl` and to TensorBoard.

    Args:
        run: the run folder.
        step: of the checkpoint that the run goes on from: later rows are dropped.
    """

    def __init__(self, run: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._path = run / "metrics.jsonl"
        kept = [row for row in read_metrics(run) if row["step"] <= step]
        write_text(self._path, "".join(strict_json(row) + "\n" for row in kept))
        self._board = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)

    def write(self, row: Row) -> None:
        """Append a row with its `step`. TensorBoard has gaps where numbers are not finite."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(strict_json(row) + "\n")
        for name, value in row.items():
            if name != "step" and isinstance(value, int | float) and math.isfinite(value):
                self._board.add_scalar(name, value, row["step"])

    def close(self) -> None:
        """Flush TensorBoard."""
        self._board.close()


def read_metrics(run: Path) -> list[Row]:
    """All complete rows of a run, in order; a last line cut by a crash is left out.

    A number that was not finite is null in the file and NaN here.
    """
    path = run / "metrics.jsonl"
    rows = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
                rows.append({k: math.nan if v is None else v for k, v in row.items()})
            except ValueError:
                break
    return rows


def finite_losses(rows: list[Row]) -> list[float]:
    """The training losses in order, without the rows that have none."""
    return [row["loss"] for row in rows if math.isfinite(row.get("loss", math.nan))]


def draw_curves(run: Path) -> None:
    """Write `RUN/curves.png`: loss, learning rate and gradient norm over steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = read_metrics(run)
    panels = [name for name in ("loss", "learning_rate", "gradient_norm") if _has(rows, name)]
    if not panels:
        return
    figure, axes = pyplot.subplots(1, len(panels), figsize=(5 * len(panels), 3.5), squeeze=False)
    for axis, name in zip(axes[0], panels, strict=True):
        axis.plot(*_series(rows, name), label=name)
        if name == "loss" and _has(rows, "validation_loss"):
            axis.plot(*_series(rows, "validation_loss"), marker="o", label="validation loss")
            axis.legend()
        axis.set_xlabel("step")
        axis.set_title(name.replace("_", " "))
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(run / "curves.png", dpi=110)
    pyplot.close(figure)


def _has(rows: list[Row], name: str) -> bool:
    return any(name in row for row in rows)


def _series(rows: list[Row], name: str) -> tuple[list[int], list[float]]:
    chosen = [row for row in rows if name in row]
    return [row["step"] for row in chosen], [row[name] for row in chosen]
