"""What a benchmark leaves behind: results.jsonl (every measurement), results.md, results.png."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from bart_cli import __version__
from bart_cli.benchmark.rows import Row
from bart_cli.benchmark.session import Message
from bart_cli.benchmark.sweep import Results
from bart_cli.benchmark.tables import TextTable
from bart_cli.figures import Throughput, draw_throughput
from bart_cli.files import strict_json, write_text
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
    """Draw throughput over batch size, a line for each case."""
    lines: dict[str, list[Throughput]] = {}
    for row in (row for row in rows if row.ok):
        label = f"{row.side}, {row.precision}, {row.processes} x {row.length} tokens"
        found = next((line for line in lines.setdefault(row.name, []) if line.label == label), None)
        if found is None:
            found = Throughput(label)
            lines[row.name].append(found)
        found.add(row.size, row.throughput, row.rates)
    if lines:
        draw_throughput(path, lines, {name: _axes(name) for name in lines}, caption)


def _axes(name: str) -> tuple[str, str]:
    """Labels of the axes of a panel."""
    x = "processes" if name in ("preprocess", "shards") else "batch size"
    return x, "bytes/s" if name == "preprocess" else "items/s"


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
