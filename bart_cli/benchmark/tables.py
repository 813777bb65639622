"""Rows of measurements, and tables of them: in the reference's format, and with more details."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bart_cli.benchmark.processes import OK
from bart_cli.benchmark.session import Case, Unit

NOTHING = "-"
MFU = "MFU: of the speed of matrix products, measured in between"
PERCENTILES = (50, 90, 95, 99)
# Stage -> description, unit of its rate, and items per unit.
STAGES = {
    "preprocess": ("text to samples (sentences, BPE, packing)", "text, MB/s", 1e6),
    "denoise": ("noise and padding, one process", "samples/s", 1.0),
    "shards": ("loader of pre-training, its processes", "samples/s", 1.0),
    "pairs": ("loader of fine-tuning, one process", "pairs/s", 1.0),
}
PARALLEL = ("preprocess", "shards")  # stages to measure with several processes


@dataclass
class Row:
    """Measurements of a case at one size. Lists have an entry for each measurement.

    Attributes:
        place: index of the size in its case, used to match rows of two precisions.
        items, tokens: of all processes; see Unit.
        flops, ceiling: of one process; see Unit.
    """

    name: str
    side: str
    processes: int
    precision: str
    length: int
    size: int
    place: int
    outcome: str = OK
    seconds: list[float] = field(default_factory=list)
    items: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    flops: list[float] = field(default_factory=list)
    ceiling: list[float] = field(default_factory=list)
    peak_flops: float | None = None
    memory: int = 0

    @classmethod
    def of(cls, case: Case, size: int) -> Row:
        """Make an empty row."""
        own = (case.load.name, case.side, case.processes, case.precision, case.load.length)
        return cls(*own, size, case.sizes.index(size))

    def add(self, ranks: Sequence[Unit]) -> None:
        """Add a measurement: time of the slowest rank, largest memory, the rest from rank 0."""
        first = ranks[0]
        self.seconds.append(max(rank.seconds for rank in ranks))
        self.items.append(first.items)
        self.tokens.append(first.tokens)
        self.flops += [] if first.flops is None else [first.flops]
        self.ceiling += [] if first.ceiling is None else [first.ceiling]
        self.peak_flops = first.peak_flops
        self.memory = max(self.memory, *(rank.memory for rank in ranks))

    def headline(self) -> str:
        """Describe the case beside the progress bar."""
        count = self.size if self.name in STAGES else self.processes
        processes = f"{count} process" + ("es" if count > 1 else "")
        sizes = f"{self.length} tokens, batch {self.size}, {self.precision}, "
        return processes if self.name in STAGES else sizes + processes

    @property
    def rates(self) -> NDArray[np.float64]:
        """Items per second in each measurement."""
        return np.divide(self.items, self.seconds)

    @property
    def figures(self) -> dict[str, Any]:
        """Medians of items and real tokens per second, seconds per unit, and MFU.

        The MFU is useful FLOP/s over the measured ceiling or the data sheet's peak; None: unknown.
        """
        flops = float(np.median(np.divide(self.flops, self.seconds))) if self.flops else None
        ceiling = float(np.median(self.ceiling)) if self.ceiling else None
        percentiles = np.percentile(self.seconds, PERCENTILES).tolist()
        named = {f"{p}%": value for p, value in zip(PERCENTILES, percentiles, strict=True)}
        return {
            "throughput": float(np.median(self.rates)),
            "throughput_range": [float(self.rates.min()), float(self.rates.max())],
            "tokens_per_second": float(np.median(np.divide(self.tokens, self.seconds))),
            "latency": {"mean": float(np.mean(self.seconds))} | named,
            "mfu_measured": flops / ceiling if flops and ceiling else None,
            "mfu_data_sheet": flops / self.peak_flops if flops and self.peak_flops else None,
        }

    def summary(self) -> dict[str, Any]:
        """Convert to a dictionary, for results.jsonl."""
        return asdict(self) | (self.figures if self.outcome == OK else {})


@dataclass
class TextTable:
    """A table of texts, to be printed or written as Markdown."""

    title: str
    header: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """Format as a GitHub-flavored Markdown table."""
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        return f"{self.title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


# Contents of columns: for every row, and for rows with measurements.
KEYS: dict[str, Callable[[Row], str]] = {
    "GPUs": lambda row: str(row.processes),
    "Processes": lambda row: str(row.size if row.name in STAGES else row.processes),
    **dict.fromkeys(("Batch size", "Batch"), lambda row: str(row.size)),
    "Length": lambda row: str(row.length),
    "Precision": lambda row: row.precision,
    "Stage": lambda row: STAGES[row.name][0],
}
CELLS: dict[str, Callable[[Row], str]] = {
    "Latency Avg": lambda row: _short(row.figures["latency"]["mean"]),
    **dict.fromkeys(("Latency 90%", "90%"), lambda row: _short(row.figures["latency"]["90%"])),
    "Latency 95%": lambda row: _short(row.figures["latency"]["95%"]),
    "Latency 99%": lambda row: _short(row.figures["latency"]["99%"]),
    "Throughput": lambda row: _short(row.figures["throughput"]),
    **dict.fromkeys(("Batches", "Steps"), lambda row: str(len(row.seconds))),
    "Seconds": lambda row: _short(row.figures["latency"]["50%"]),
    "Range": lambda row: _range(row.seconds),
    "Tokens/s": lambda row: f"{row.figures['tokens_per_second']:,.0f}",
    "Peak memory": lambda row: _memory(row.memory),
    "MFU": lambda row: _percent(row.figures["mfu_measured"]),
    "Sheet MFU": lambda row: _percent(row.figures["mfu_data_sheet"]),
    "Median": lambda row: _short(row.figures["throughput"] / STAGES[row.name][2]),
    "Smallest - largest": lambda row: _range(row.rates / STAGES[row.name][2]),
    "Unit": lambda row: STAGES[row.name][1],
}


def make_tables(rows: Sequence[Row], device: str) -> list[TextTable]:
    """Make all tables of a benchmark; `device` is "GPU" or "process"."""
    ours = [row for row in rows if row.side == "bart"]
    many, plural = ("GPUs", "GPUs") if device == "GPU" else ("Processes", "processes")
    if ours[0].name in STAGES:
        columns = "Stage|Processes|Median|Smallest - largest|Unit|Tokens/s"
        return [_table("Data", columns, ours)]
    tables = []
    if ours[0].name == "Inference":
        for (count, precision), mine in groupby(ours, lambda row: (row.processes, row.precision)):
            title = f"Inference, {precision.upper()}, {count} {device if count == 1 else plural}: "
            title += f"seconds per batch, articles per second; {MFU}"
            columns = "Batch size|Latency Avg|Latency 90%|Latency 95%|Latency 99%|Throughput|"
            tables.append(_table(title, columns + "Batches|Peak memory|MFU", mine))
    else:
        for name in dict.fromkeys(row.name for row in ours):
            named = [row for row in ours if row.name == name]
            tables.append(_training_table(named, device, many))
        title = "Details: seconds per step (median, 90%, smallest - largest), real tokens per "
        columns = f"{many}|Length|Batch|Precision|Seconds|90%|Range|Tokens/s|Steps|Peak memory|MFU"
        tables.append(_table(f"{title}second; {MFU}", columns + "|Sheet MFU", ours))
    rivals = [row for row in rows if row.side == "transformers"]
    return [*tables, _comparison(ours, rivals, many)] if rivals else tables


def _table(title: str, columns: str, rows: Iterable[Row]) -> TextTable:
    """Make a table with a line per row; without measurements, its first cell gives the reason."""
    names = columns.split("|")
    keys, cells = ([name for name in names if name in among] for among in (KEYS, CELLS))
    table = TextTable(title, names, [])
    for row in rows:
        measured = [CELLS[name](row) for name in cells] if row.outcome == OK else [row.outcome]
        missing = [NOTHING] * (len(cells) - len(measured))
        table.rows.append([*(KEYS[name](row) for name in keys), *measured, *missing])
    return table


def _training_table(rows: Sequence[Row], device: str, many: str) -> TextTable:
    """Make the reference's table: a line per number of processes and length."""
    precisions = list(dict.fromkeys(row.precision for row in rows))
    header = [many, "Sequence length", f"Batch size / {device} ({', '.join(precisions)})"]
    header += [f"Throughput - {precision}" for precision in precisions]
    header += [f"Throughput speedup ({precisions[0]} - {p})" for p in precisions[1:]]
    header += [f"Weak scaling - {precision}" for precision in precisions]
    table = TextTable(f"{rows[0].name}: sequences per second", header, [])
    found = {(r.length, r.place, r.processes, r.precision): r for r in rows}
    absent = replace(rows[0], outcome=NOTHING)
    counts = sorted({row.processes for row in rows})
    for place in dict.fromkeys((row.length, row.place) for row in rows):
        for count in counts:
            line = [found.get((*place, count, p), absent) for p in precisions]
            alone = [found.get((*place, counts[0], p), absent) for p in precisions]
            sizes = [str(row.size) for row in line if row is not absent]
            if sizes:
                batch = sizes[0] if len(set(sizes)) == 1 else ", ".join(sizes)
                cells = [str(count), str(place[0]), batch, *map(_throughput, line)]
                cells += [_quotient(row, line[0]) for row in line[1:]]
                cells += [_quotient(row, one) for row, one in zip(line, alone, strict=True)]
                table.rows.append(cells)
    return table


def _comparison(ours: Sequence[Row], rivals: Sequence[Row], many: str) -> TextTable:
    """Make a table with a line per pair of rows with the same index in both lists."""
    title = "bart beside transformers, measured in turn: items per second, ratio (median and range)"
    keys = [many, "Precision", "Length", "Batch"]
    header = ["", *keys, "bart", "transformers", "Times as fast", "Range", "Memory", "its memory"]
    table = TextTable(title, header, [])
    for row, rival in zip(ours, rivals, strict=True):
        ratio = [NOTHING, NOTHING]
        if row.outcome == rival.outcome == OK:
            times = row.rates / rival.rates  # of adjacent measurements
            ratio = [f"{np.median(times):.2f}", f"{times.min():.2f} - {times.max():.2f}"]
        cells = [row.name, *(KEYS[name](row) for name in keys), _throughput(row)]
        cells += [_throughput(rival), *ratio, _memory(row.memory), _memory(rival.memory)]
        table.rows.append(cells)
    return table


def _throughput(row: Row) -> str:
    return f"{row.figures['throughput']:.2f}" if row.outcome == OK else row.outcome


def _quotient(row: Row, other: Row) -> str:
    if not row.outcome == other.outcome == OK:
        return NOTHING
    return f"{row.figures['throughput'] / other.figures['throughput']:.2f}"


def _short(value: float) -> str:
    """Format with three significant digits, or more for large numbers."""
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 1:
        return f"{value:.2f}"
    return f"{value:.3g}" if value >= 1e-3 else f"{value:.2g}"


def _range(values: Sequence[float] | NDArray[np.float64]) -> str:
    return f"{_short(min(values))} - {_short(max(values))}"


def _memory(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size else NOTHING


def _percent(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.1%}"
