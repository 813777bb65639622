"""The three benchmarks: plan, sweep, tables, files. In: groups of arms. Out: a Report."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bart_cli.benchmark.plan import Group, plan_data
from bart_cli.benchmark.report import device_word, hottest_tables, write_report
from bart_cli.benchmark.rows import Row
from bart_cli.benchmark.spec import DataSpec
from bart_cli.benchmark.sweep import run_sweep
from bart_cli.benchmark.tables import (
    TextTable,
    comparison_table,
    data_tables,
    decoding_tables,
    training_tables,
)
from bart_cli.config.benchmark import BenchmarkConfig
from bart_cli.files import require_folder
from bart_cli.progress import Reporter
from bart_cli.runtime.interrupts import finishing
from bart_cli.runtime.locks import locked_folder
from bart_cli.runtime.world import World, held_by_rank_0, join_world, launched
from bart_cli.tokenizer import Tokenizer

MEGABYTES = 8.0  # of the embedded sample
PAIRS = 2000
VOCABULARY = 2500


@dataclass(frozen=True)
class Report:
    """What a benchmark found; `leads`: this process is the one that tells."""

    out: Path
    rows: list[Row]
    tables: list[TextTable]
    interrupted: bool
    leads: bool = True


def run_training_benchmark(
    groups: Sequence[Group], out: Path, *, command: str, reporter: Reporter
) -> Report:
    """Measure optimizer steps; OUT/results.{jsonl,md,png} and traces are written.

    Raises:
        BartError: an arm cannot run at all.
    """
    return _run(groups, out, "Training", command, reporter, training_tables)


def run_decoding_benchmark(
    groups: Sequence[Group], out: Path, *, command: str, reporter: Reporter
) -> Report:
    """Measure batches of decoding; as above."""
    return _run(groups, out, "Inference", command, reporter, decoding_tables)


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
    """Measure preprocessing, noise and loaders, on a corpus or on the embedded sample."""
    from bart_cli.benchmark.data_load import write_shards

    require_folder(out)
    with tempfile.TemporaryDirectory(prefix="bart-benchmark-") as name:
        work = Path(name)
        texts, pair_folder, words = corpus, pairs, tokenizer
        if texts is None or pair_folder is None:
            sample_texts, sample_pairs = _sample(work, reporter)
            texts, pair_folder = texts or sample_texts, pair_folder or sample_pairs
        vocabulary = Tokenizer.from_pretrained(words) if words else _learn(texts, reporter)
        vocabulary.save(work / "tokenizer")
        spec = DataSpec(
            stage="preprocess",
            work=work,
            corpus=texts,
            pairs=pair_folder,
            tokenizer=work / "tokenizer",
            length=length,
            batch=batch,
        )
        with reporter.task("write shards", total=1) as task:
            write_shards(spec)
            task.advance()
        groups = plan_data(spec, workers, benchmark)
        return _run(groups, out, "Data", command, reporter, lambda rows, _: data_tables(rows))


def _sample(work: Path, reporter: Reporter) -> tuple[Path, Path]:
    from bart_cli.data.download.sample import write_sample

    write_sample(
        work / "sample",
        megabytes=MEGABYTES,
        train=PAIRS,
        validation=1,
        test=1,
        reporter=reporter,
    )
    return work / "sample" / "pretrain", work / "sample" / "summarization"


def _learn(texts: Path, reporter: Reporter) -> Tokenizer:
    from bart_cli.data.documents import read_texts

    with reporter.task("train the tokenizer"):
        return Tokenizer.train(read_texts(texts, "lines"), VOCABULARY)


def _run(
    groups: Sequence[Group],
    out: Path,
    title: str,
    command: str,
    reporter: Reporter,
    make_tables: Callable[[Sequence[Row], str], list[TextTable]],
) -> Report:
    with ExitStack() as stack:
        world = stack.enter_context(_world())
        leads = world is None or world.leads
        reporter = reporter if leads else Reporter()
        stack.enter_context(
            locked_folder(out, reporter) if world is None else held_by_rank_0(out, world, reporter)
        )
        results = run_sweep(groups, out, reporter, world)
        if not results.rows:
            raise KeyboardInterrupt
        word = device_word()
        tables = make_tables(results.rows, word)
        compared = comparison_table(results.rows, word)
        if compared is not None:
            tables.append(compared)
        if leads:
            with finishing():  # after Ctrl-C too
                write_report(out, title, command, results, tables)
        return Report(
            out=out,
            rows=results.rows,
            tables=[*tables, *hottest_tables(results.hottest)],
            interrupted=results.interrupted,
            leads=leads,
        )


@contextmanager
def _world() -> Iterator[World | None]:
    """The place that a launcher gave this process; None: the benchmark starts its own."""
    if not launched():
        yield None
        return
    with join_world() as world:
        yield world
