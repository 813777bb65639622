"""Rows as tables in the reference's form, and beside them what that form has no room for."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from bart_cli.benchmark.rows import Row, ratios

NOTHING = "-"
MFU = "MFU: of the speed of matrix products, measured in between"
UNITS = {
    "preprocess": ("text, MB/s", 1e6),
    "denoise": ("samples/s", 1.0),
    "shards": ("samples/s", 1.0),
    "pairs": ("pairs/s", 1.0),
}
STAGES = {
    "preprocess": "text to samples (sentences, BPE, packing)",
    "denoise": "noise and padding, one process",
    "shards": "loader of pre-training, its processes",
    "pairs": "loader of fine-tuning, one process",
}


@dataclass
class TextTable:
    """A table of text, to be shown by rich or written as Markdown."""

    title: str
    header: list[str]
    rows: list[list[str]] = field(default_factory=list)

    def markdown(self) -> str:
        """GitHub's form."""
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return f"{self.title}\n\n{body}\n"


def training_tables(rows: Sequence[Row], device: str) -> list[TextTable]:
    """Per kind of training: the reference's table, and the details of each row."""
    tables = []
    ours = [row for row in rows if row.side == "bart"]
    for name in dict.fromkeys(row.name for row in ours):
        mine = [row for row in ours if row.name == name]
        tables.append(_reference_training(name, mine, device))
    tables.append(_details(ours, device, "step"))
    return tables


def _reference_training(name: str, rows: Sequence[Row], device: str) -> TextTable:
    precisions = list(dict.fromkeys(row.precision for row in rows))
    listed = ", ".join(precisions)
    header = [plural(device), "Sequence length", f"Batch size / {device} ({listed})"]
    header += [f"Throughput - {precision}" for precision in precisions]
    header += [f"Throughput speedup ({precisions[0]} - {p})" for p in precisions[1:]]
    header += [f"Weak scaling - {precision}" for precision in precisions]
    table = TextTable(f"{name}: sequences per second", header)
    keys = dict.fromkeys((row.length, row.place) for row in rows)
    found = {(r.length, r.place, r.processes, r.precision): r for r in rows}
    fewest = min(row.processes for row in rows)
    for length, place in keys:
        for processes in dict.fromkeys(row.processes for row in rows):
            line = [found.get((length, place, processes, p)) for p in precisions]
            alone = [found.get((length, place, fewest, p)) for p in precisions]
            sizes = [str(row.size) for row in line if row is not None]
            if not sizes:
                continue
            cells = [
                str(processes),
                str(length),
                sizes[0] if len(set(sizes)) == 1 else ", ".join(sizes),
            ]
            cells += [_throughput(row) for row in line]
            cells += [_quotient(row, line[0]) for row in line[1:]]
            cells += [_quotient(row, one) for row, one in zip(line, alone, strict=True)]
            table.rows.append(cells)
    return table


def plural(device: str) -> str:
    """GPUs, or processes: the head of a column."""
    return "GPUs" if device == "GPU" else "Processes"


def decoding_tables(rows: Sequence[Row], device: str) -> list[TextTable]:
    """For each arm the reference's table, extended by memory and utilization."""
    tables = []
    ours = [row for row in rows if row.side == "bart"]
    for processes, precision in dict.fromkeys((row.processes, row.precision) for row in ours):
        many = "GPUs" if device == "GPU" else "processes"
        where = f"{processes} {device if processes == 1 else many}"
        table = TextTable(
            f"Inference, {precision.upper()}, {where}: seconds per batch, articles per second; "
            f"{MFU}",
            "Batch size|Latency Avg|Latency 90%|Latency 95%|Latency 99%|Throughput|Batches|"
            "Peak memory|MFU".split("|"),
        )
        for row in ours:
            if (row.processes, row.precision) != (processes, precision):
                continue
            if not row.ok:
                table.rows.append([str(row.size), *[NOTHING] * 4, row.outcome, *[NOTHING] * 3])
                continue
            latency = row.latency
            table.rows.append(
                [
                    str(row.size),
                    *(_short(latency[key]) for key in ("mean", "90%", "95%", "99%")),
                    _short(row.throughput),
                    str(len(row.seconds)),
                    _memory(row.memory),
                    _share(row.utilization(measured=True)),
                ]
            )
        tables.append(table)
    return tables


def data_tables(rows: Sequence[Row]) -> list[TextTable]:
    """One table of all stages."""
    table = TextTable(
        "Data", ["Stage", "Processes", "Median", "Smallest - largest", "Unit", "Tokens/s"]
    )
    for row in rows:
        unit, scale = UNITS[row.name]
        cells = [STAGES[row.name], str(row.size)]
        if not row.ok:
            table.rows.append([*cells, row.outcome, NOTHING, unit, NOTHING])
            continue
        low, high = min(row.rates) / scale, max(row.rates) / scale
        spread = f"{_short(low)} - {_short(high)}"
        middle = _short(row.throughput / scale)
        table.rows.append([*cells, middle, spread, unit, f"{row.tokens_per_second:,.0f}"])
    return [table]


def comparison_table(rows: Sequence[Row], device: str) -> TextTable | None:
    """Ours beside transformers, measured in turn; None when nothing was compared."""
    table = TextTable(
        "bart beside transformers, measured in turn: items per second, ratio (median and range)",
        f"|{plural(device)}|Precision|Length|Batch|bart|transformers|Times as fast|Range|Memory|"
        "its memory".split("|"),
    )
    theirs = {_key(row): row for row in rows if row.side == "transformers"}
    for row in (row for row in rows if row.side == "bart"):
        rival = theirs.get(_key(row))
        if rival is None:
            continue
        cells = [row.name, str(row.processes), row.precision, str(row.length), str(row.size)]
        cells += [_throughput(row), _throughput(rival)]
        if row.ok and rival.ok:
            times = ratios(row, rival)
            spread = f"{min(times):.2f} - {max(times):.2f}"
            cells += [f"{statistics.median(times):.2f}", spread]
        else:
            cells += [NOTHING, NOTHING]
        table.rows.append([*cells, _memory(row.memory), _memory(rival.memory)])
    return table if table.rows else None


def _details(rows: Sequence[Row], device: str, unit: str) -> TextTable:
    table = TextTable(
        f"Details: seconds per {unit} (median, 90%, smallest - largest), real tokens per second; "
        f"{MFU}",
        f"{plural(device)}|Length|Batch|Precision|Seconds|90%|Range|Tokens/s|{unit.capitalize()}s|"
        "Peak memory|MFU|Sheet MFU".split("|"),
    )
    for row in rows:
        cells = [str(row.processes), str(row.length), str(row.size), row.precision]
        if not row.ok:
            table.rows.append([*cells, row.outcome, *[NOTHING] * 7])
            continue
        latency = row.latency
        table.rows.append(
            [
                *cells,
                _short(latency["50%"]),
                _short(latency["90%"]),
                f"{_short(min(row.seconds))} - {_short(max(row.seconds))}",
                f"{row.tokens_per_second:,.0f}",
                str(len(row.seconds)),
                _memory(row.memory),
                _share(row.utilization(measured=True)),
                _share(row.utilization(measured=False)),
            ]
        )
    return table


def _key(row: Row) -> tuple[str, int, str, int, int]:
    return row.name, row.processes, row.precision, row.length, row.size


def _throughput(row: Row | None) -> str:
    if row is None:
        return NOTHING
    return f"{row.throughput:.2f}" if row.ok else row.outcome


def _quotient(row: Row | None, other: Row | None) -> str:
    if row is None or other is None or not (row.ok and other.ok):
        return NOTHING
    return f"{row.throughput / other.throughput:.2f}"


def _short(value: float) -> str:
    """Three significant digits, more for large numbers."""
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 1:
        return f"{value:.2f}"
    return f"{value:.3g}" if value >= 1e-3 else f"{value:.2g}"


def _memory(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size else NOTHING


def _share(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.1%}"
