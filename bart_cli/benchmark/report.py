"""What a benchmark leaves behind: results.jsonl (every measurement), results.md, results.png."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from bart_cli import __version__
from bart_cli.benchmark.rows import Row
from bart_cli.benchmark.session import Message
from bart_cli.benchmark.sweep import Results
from bart_cli.benchmark.tables import TextTable
from bart_cli.files import atomic_file, strict_json, write_text
from bart_cli.runtime.cores import usable_cores


@dataclass(frozen=True)
class Machine:
    """Where it was measured."""

    device: str
    devices: int
    torch: str
    bart: str
    date: str

    @classmethod
    def here(cls) -> Machine:
        """This one."""
        gpu = torch.cuda.is_available()
        return cls(
            device=torch.cuda.get_device_name(0) if gpu else _processor(),
            devices=torch.cuda.device_count() if gpu else usable_cores(),
            torch=torch.__version__,
            bart=__version__,
            date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        )

    def line(self) -> str:
        """In words."""
        kind = "GPUs" if torch.cuda.is_available() else "cores"
        versions = f"torch {self.torch}, bart {self.bart}"
        return f"{self.device}, {self.devices} {kind}, {versions}, {self.date}"


def device_word() -> str:
    """What computes: a GPU, or a process on the CPU."""
    return "GPU" if torch.cuda.is_available() else "process"


def write_report(
    out: Path, title: str, command: str, results: Results, tables: Sequence[TextTable]
) -> None:
    """Write the three files below `out`."""
    machine = Machine.here()
    lines = [strict_json(row.summary() | {"machine": vars(machine)}) for row in results.rows]
    write_text(out / "results.jsonl", "".join(f"{line}\n" for line in lines))
    parts = [f"# {title}", machine.line(), f"```bash\n{command}\n```"]
    parts += [table.markdown().strip() for table in tables]
    parts += [table.markdown().strip() for table in hottest_tables(results.hottest)]
    write_text(out / "results.md", "\n\n".join(parts) + "\n")
    draw(results.rows, out / "results.png", machine.line())


def hottest_tables(hottest: dict[str, list[Message]]) -> list[TextTable]:
    """The ten operators of each profile."""
    tables = []
    for name, operators in hottest.items():
        table = TextTable(
            f"Hottest operators ({name})", ["Operator", "Calls", "Milliseconds", "Share"]
        )
        table.rows = [
            [o["name"], f"{o['calls']:,}", f"{o['milliseconds']:,.1f}", f"{o['share']:.1%}"]
            for o in operators
        ]
        tables.append(table)
    return tables


def draw(rows: Sequence[Row], path: Path, caption: str) -> None:
    """Throughput over batch size, a line for each arm, with the spread of the measurements."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    good = [row for row in rows if row.ok]
    if not good:
        return
    names = list(dict.fromkeys(row.name for row in good))
    figure, axes = pyplot.subplots(1, len(names), figsize=(1 + 5 * len(names), 4.2), squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        arms: dict[tuple[Any, ...], list[Row]] = {}
        for row in good:
            if row.name == name:
                key = (row.side, row.processes, row.precision, row.length)
                arms.setdefault(key, []).append(row)
        for (side, processes, precision, length), members in arms.items():
            sizes = [row.size for row in members]
            middle = [row.throughput for row in members]
            low = [m - min(row.rates) for m, row in zip(middle, members, strict=True)]
            high = [max(row.rates) - m for m, row in zip(middle, members, strict=True)]
            label = f"{side}, {precision}, {processes} x {length} tokens"
            axis.errorbar(sizes, middle, yerr=[low, high], marker="o", capsize=3, label=label)
        axis.set_xscale("log", base=2)
        ticks = sorted({row.size for row in good if row.name == name})
        axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axis.minorticks_off()
        axis.set_ylim(bottom=0)
        axis.set_title(name)
        axis.set_xlabel("processes" if name in ("preprocess", "shards") else "batch size")
        axis.set_ylabel("bytes/s" if name == "preprocess" else "items/s")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    figure.suptitle(caption, fontsize=7)
    figure.tight_layout()
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    pyplot.close(figure)


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
