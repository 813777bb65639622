"""Run a benchmark: measure each size of each case repeatedly.

In: groups of cases. Out: a Report, and OUT/results.{jsonl,md,png}. Cases that are compared take
turns, so that other load on the machine affects both.
"""

from __future__ import annotations

import platform
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch

from bart_cli import __version__
from bart_cli.benchmark.cases import PARALLEL, Case, DataSpec, Group, plan_data
from bart_cli.benchmark.processes import OK, Processes, processes_of
from bart_cli.benchmark.tables import Row, TextTable, make_tables
from bart_cli.config.commands import BenchmarkConfig
from bart_cli.config.data import SummarizationDataConfig
from bart_cli.figures import draw_throughput
from bart_cli.files import require_folder, strict_json, write_text
from bart_cli.progress import Reporter, Task
from bart_cli.runtime.cores import usable_cores
from bart_cli.runtime.interrupts import finishing
from bart_cli.runtime.locks import locked_folder
from bart_cli.runtime.world import World, held_by_rank_0, join_world, launched
from bart_cli.tokenizer import Tokenizer

FEWEST = 3  # minimum measurements per row, however long they take
CEILINGS = 10  # measurements of the ceiling per row
SAMPLE = {"megabytes": 8.0, "train": 2000, "validation": 1, "test": 1}  # built-in sample
VOCABULARY = 2500


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
        world = stack.enter_context(join_world()) if launched() else None
        report = Report(out, is_main=world is None or world.is_main)
        reporter = reporter if report.is_main else Reporter()
        lock = held_by_rank_0(out, world, reporter) if world else locked_folder(out, reporter)
        stack.enter_context(lock)
        total = sum(len(group[0].sizes) for group in groups)
        with reporter.task("benchmark", total=total, unit="rows") as task:
            try:
                for group in groups:
                    for rows in _measure_group(group, world, report, task):
                        report.rows += rows
                        task.advance(1)
            except KeyboardInterrupt:
                report.interrupted = True
        if not report.rows:
            raise KeyboardInterrupt
        if report.is_main:
            with finishing():  # even after Ctrl-C
                write_report(report, title, command)
        return report


def _measure_group(
    group: Group, world: World | None, report: Report, task: Task
) -> Iterator[list[Row]]:
    """Measure each size; a size that does not fit in memory gets a row without measurements."""
    sizes = list(group[0].sizes)
    while sizes:
        with ExitStack() as stack:
            started = [stack.enter_context(processes_of(case, world)) for case in group]
            # After running out of memory, start new processes for the remaining sizes.
            while sizes and all(processes.outcome == OK for processes in started):
                rows = [Row.of(case, sizes[0]) for case in group]
                task.show({rows[0].name: rows[0].headline()})
                for processes in started:
                    processes.ask("prepare", sizes[0])
                _measure_row(list(zip(rows, started, strict=True)), group[0].benchmark, world)
                if group[0].benchmark.profile:
                    _profile(group, started, report)
                sizes.pop(0)
                yield rows


def _measure_row(
    sides: Sequence[tuple[Row, Processes]], benchmark: BenchmarkConfig, world: World | None
) -> None:
    begin = time.monotonic()
    for number in range(benchmark.repeats):
        late = number >= FEWEST and time.monotonic() - begin > benchmark.seconds
        if world.any(late) if world else late:  # the clocks of ranks differ
            break
        for row, processes in sides:
            if answers := processes.ask("measure", number < CEILINGS):
                row.add(answers)
    for row, processes in sides:
        row.outcome = processes.outcome


def _profile(group: Sequence[Case], started: Sequence[Processes], report: Report) -> None:
    header = ["Operator", "Calls", "Milliseconds", "Share"]
    for case, processes in zip(group, started, strict=True):
        name = f"trace-{case.side}-{case.precision}-{case.processes}x{case.load.length}.json"
        for rows in processes.ask("profile", report.out / name)[:1]:
            report.profiles[name] = TextTable(f"Hottest operators ({name})", header, rows)


def run_data_benchmark(
    out: Path,
    *,
    corpus: Path | None,
    pairs: Path | None,
    tokenizer: str | None,
    length: int,
    batch: int,
    workers: Sequence[int],
    benchmark: BenchmarkConfig,
    command: str,
    reporter: Reporter,
) -> Report:
    """Measure preprocessing, noise and loaders, on the built-in sample if a path is None."""
    from bart_cli.benchmark.data_load import block_tasks
    from bart_cli.data.documents import read_texts, scan_corpus
    from bart_cli.data.download.sample import write_sample
    from bart_cli.data.pairs import PairSource
    from bart_cli.data.preprocess.blocks import process_block

    require_folder(out)
    if corpus is not None:
        scan_corpus(corpus)
    if pairs is not None:
        PairSource(SummarizationDataConfig(path=pairs))
    with tempfile.TemporaryDirectory(prefix="bart-benchmark-") as name:
        work = Path(name)
        if corpus is None or pairs is None:
            write_sample(work / "sample", **SAMPLE, reporter=reporter)  # type: ignore[arg-type]
            corpus = corpus or work / "sample" / "pretrain"
            pairs = pairs or work / "sample" / "summarization"
        if tokenizer is not None:
            words = Tokenizer.from_pretrained(tokenizer)
        else:
            with reporter.task("train the tokenizer") as task:
                words = Tokenizer.train(read_texts(corpus, "lines"), VOCABULARY)
                task.advance()
        words.save(work / "tokenizer")
        spec = DataSpec(work, corpus, pairs, work / "tokenizer", length, batch)
        with reporter.task("write shards", total=1) as task:
            for block in block_tasks(spec, work):
                process_block(block)
            task.advance()
        groups = plan_data(spec, workers, benchmark)
        return run_benchmark(groups, out, "Data", command=command, reporter=reporter)


def write_report(report: Report, title: str, command: str) -> None:
    """Write the three result files."""
    out, gpu = report.out, torch.cuda.is_available()
    machine = {
        "device": torch.cuda.get_device_name(0) if gpu else _processor(),
        "devices": torch.cuda.device_count() if gpu else usable_cores(),
        "torch": torch.__version__,
        "bart": __version__,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    lines = [strict_json(row.summary() | {"machine": machine}) for row in report.rows]
    write_text(out / "results.jsonl", "".join(f"{line}\n" for line in lines))
    units = "GPUs" if gpu else "cores"
    caption = f"{{device}}, {{devices}} {units}, torch {{torch}}, bart {{bart}}, {{date}}"
    caption = caption.format(**machine)
    parts = [f"# {title}", caption, f"```bash\n{command}\n```"]
    parts += [table.markdown() for table in report.tables]
    write_text(out / "results.md", "\n\n".join(parts) + "\n")
    _draw(report.rows, out / "results.png", caption)


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.+)$", path.read_text(), re.M) if path.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def _draw(rows: Sequence[Row], path: Path, caption: str) -> None:
    """Plot throughput over sizes, with a panel per type of case and a line per case."""
    lines: dict[str, dict[str, list[tuple[int, list[float]]]]] = {}
    labels = {}
    for row in (row for row in rows if row.ok):
        label = f"{row.side}, {row.precision}, {row.processes} x {row.length} tokens"
        line = lines.setdefault(row.name, {}).setdefault(label, [])
        line.append((row.size, row.rates.tolist()))
        x = "processes" if row.name in PARALLEL else "batch size"
        labels[row.name] = x, "bytes/s" if row.name == "preprocess" else "items/s"
    if lines:
        draw_throughput(path, lines, labels, caption)
