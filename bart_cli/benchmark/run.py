"""Run a benchmark: measure each size of each case repeatedly.

In: groups of cases. Out: a Report, and OUT/results.{jsonl,md,png}. Cases that are compared take
turns, so that other load on the machine affects both.
"""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch

from bart_cli import __version__
from bart_cli.benchmark.processes import OK, Processes, processes_of
from bart_cli.benchmark.session import Case, Group
from bart_cli.benchmark.tables import PARALLEL, Row, TextTable, make_tables
from bart_cli.figures import draw_throughput
from bart_cli.files import strict_json, write_text
from bart_cli.progress import Reporter, Task
from bart_cli.runtime.cores import usable_cores
from bart_cli.runtime.interrupts import finishing
from bart_cli.runtime.world import World, held_by_rank_0, join_world, launched

FEWEST = 3  # minimum measurements per row, however long they take
CEILINGS = 10  # measurements of the ceiling per row
OPERATORS = ["Operator", "Calls", "Milliseconds", "Share"]  # columns of a profile


@dataclass
class Report:
    """Results of a benchmark.

    Attributes:
        profiles: trace file -> operators that took the most time.
        interrupted: the benchmark was ended by Ctrl-C.
        is_main: whether this is rank 0, which prints the results.
    """

    out: Path
    is_main: bool = True
    rows: list[Row] = field(default_factory=list)
    profiles: dict[str, TextTable] = field(default_factory=dict)
    interrupted: bool = False

    @property
    def tables(self) -> list[TextTable]:
        """All tables."""
        device = "GPU" if torch.cuda.is_available() else "process"
        return [*make_tables(self.rows, device), *self.profiles.values()]


def run_benchmark(
    groups: Sequence[Group], out: Path, title: str, *, command: str, reporter: Reporter
) -> Report:
    """Measure all cases, with turns inside each group, and write the results to `out`.

    Args:
        title: title of results.md.
        command: command line that repeats the benchmark.

    Raises:
        BartError: a case cannot run at all.
        KeyboardInterrupt: interrupted before the first row was complete.
    """
    with ExitStack() as stack:
        alone = World(0, 1, torch.device("cpu"))
        world = stack.enter_context(join_world()) if launched() else alone
        report = Report(out, is_main=world.is_main)
        reporter = reporter if world.is_main else Reporter()
        stack.enter_context(held_by_rank_0(out, world, reporter))
        total = sum(len(group[0].sizes) for group in groups)
        with reporter.task("benchmark", total=total, unit="rows") as task:
            try:
                for group in groups:
                    _measure_group(group, world, report, task)
            except KeyboardInterrupt:
                report.interrupted = True
        if not report.rows:
            raise KeyboardInterrupt
        if world.is_main:
            with finishing():  # even after Ctrl-C
                write_report(report, title, command)
        return report


def _measure_group(group: Group, world: World, report: Report, task: Task) -> None:
    """Measure each size; a size that does not fit in memory gets a row without measurements."""
    sizes = list(group[0].sizes)
    while sizes:
        with ExitStack() as stack:
            started = [stack.enter_context(processes_of(case, world)) for case in group]
            # After running out of memory, start new processes for the remaining sizes.
            while sizes and all(processes.outcome == OK for processes in started):
                rows = [Row.of(case, sizes[0]) for case in group]
                task.show({rows[0].name: rows[0].headline()})
                _measure_rows(list(zip(group, rows, started, strict=True)), world, report)
                report.rows += rows
                sizes.pop(0)
                task.advance(1)


def _measure_rows(
    sides: Sequence[tuple[Case, Row, Processes]], world: World, report: Report
) -> None:
    """Measure the rows of one size in turn, and profile them if asked."""
    for case, row, processes in sides:
        processes.ask("prepare", case, row.size)
    benchmark, begin = sides[0][0].benchmark, time.monotonic()
    for number in range(benchmark.repeats):
        late = number >= FEWEST and time.monotonic() - begin > benchmark.seconds
        if world.any(late):  # the clocks of ranks differ
            break
        for _, row, processes in sides:
            if answers := processes.ask("measure", number < CEILINGS):
                row.add(answers)
    for case, row, processes in sides:
        row.outcome = processes.outcome
        if benchmark.profile:
            name = f"trace-{case.side}-{case.precision}-{case.processes}x{case.load.length}.json"
            for lines in processes.ask("profile", report.out / name)[:1]:
                report.profiles[name] = TextTable(f"Hottest operators ({name})", OPERATORS, lines)


def write_report(report: Report, title: str, command: str) -> None:
    """Write the three result files."""
    gpu = torch.cuda.is_available()
    machine = {
        "device": torch.cuda.get_device_name(0) if gpu else _processor(),
        "devices": torch.cuda.device_count() if gpu else usable_cores(),
        "torch": torch.__version__,
        "bart": __version__,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    lines = [strict_json(row.summary() | {"machine": machine}) for row in report.rows]
    write_text(report.out / "results.jsonl", "".join(f"{line}\n" for line in lines))
    template = "{device}, {devices} {units}, torch {torch}, bart {bart}, {date}"
    caption = template.format(units="GPUs" if gpu else "cores", **machine)
    parts = [f"# {title}", caption, f"```bash\n{command}\n```"]
    parts += [table.markdown() for table in report.tables]
    write_text(report.out / "results.md", "\n\n".join(parts) + "\n")
    _draw(report.rows, report.out / "results.png", caption)


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.+)$", path.read_text(), re.M) if path.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def _draw(rows: Sequence[Row], path: Path, caption: str) -> None:
    """Plot throughput over sizes, with a panel per type of case and a line per case."""
    lines: dict[str, dict[str, list[tuple[int, list[float]]]]] = {}
    labels = {}
    for row in (row for row in rows if row.outcome == OK):
        label = f"{row.side}, {row.precision}, {row.processes} x {row.length} tokens"
        line = lines.setdefault(row.name, {}).setdefault(label, [])
        line.append((row.size, row.rates.tolist()))
        x = "processes" if row.name in PARALLEL else "batch size"
        labels[row.name] = x, "bytes/s" if row.name == "preprocess" else "items/s"
    if lines:
        draw_throughput(path, lines, labels, caption)
