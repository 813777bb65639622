"""Measure the stages from text to batches, with the code of real runs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, count, islice
from pathlib import Path

from bart_cli.benchmark.cases import ascending
from bart_cli.benchmark.loads import data_loader
from bart_cli.benchmark.run import Report, run_benchmark
from bart_cli.benchmark.session import Case, Load, Unit, Units, lengths_of, unit_of
from bart_cli.benchmark.tables import PARALLEL, STAGES
from bart_cli.config.commands import BenchmarkConfig
from bart_cli.config.data import SummarizationDataConfig
from bart_cli.config.run import FinetuneConfig, PretrainConfig
from bart_cli.data.documents import plan_blocks, read_texts, scan_corpus
from bart_cli.data.download.sample import write_sample
from bart_cli.data.order import Share
from bart_cli.data.pairs import PairSource
from bart_cli.data.preprocess.blocks import BlockTask, PreprocessSettings, process_block
from bart_cli.files import require_folder
from bart_cli.progress import Reporter
from bart_cli.runtime.cores import usable_cores
from bart_cli.runtime.workers import worker_processes
from bart_cli.runtime.world import World
from bart_cli.tokenizer import Tokenizer
from bart_cli.training.resume import TrainingRun

SAMPLE = {"megabytes": 8.0, "train": 2000, "validation": 1, "test": 1}  # built-in sample
VOCABULARY = 2500
BLOCK = 2**19  # bytes of text per task, so that a small corpus has tasks for every process
STEPS = 16  # batches per unit of work


@dataclass(frozen=True)
class DataLoad(Load):
    """A stage, by `name`, on the text in `corpus` or `pairs`; all other files are in `work`.

    A unit is a pass over the corpus, whose items are bytes, or STEPS batches. Its size is a number
    of processes.
    """

    work: Path
    corpus: Path
    pairs: Path
    batch: int

    def start(self, case: Case, world: World) -> tuple[None, Units]:
        """See Load."""
        batches = partial(self._batches, case.benchmark.seed)
        return None, self._passes if self.name == "preprocess" else batches

    def tasks(self, out: Path) -> list[BlockTask]:
        """Divide the corpus into tasks of `process_block`, each of which writes a shard."""
        settings = PreprocessSettings(
            (("corpus", self.corpus, "lines"),), (self.length,), validation_share=0.0
        )
        return [
            BlockTask(number, (block,), out, self.work / "tokenizer", settings)
            for number, block in enumerate(plan_blocks(self.corpus, "lines", BLOCK))
        ]

    def _passes(self, processes: int) -> Iterator[Unit]:
        out = self.work / "pass"
        tasks = self.tasks(out)
        size = sum(block.end - block.begin for task in tasks for block in task.blocks)
        with worker_processes(processes) as pool:
            while True:
                shutil.rmtree(out, ignore_errors=True)
                reports = pool.map(process_block, tasks)
                yield Unit(items=size, tokens=sum(report.tokens for report in reports))

    def _batches(self, seed: int, processes: int) -> Iterator[Unit]:
        tokenizer = self.work / "tokenizer"
        kind: type[TrainingRun] = FinetuneConfig
        data: dict[str, object] = {"path": self.pairs, "tokenizer": str(tokenizer)}
        if self.name != "pairs":
            kind, workers = PretrainConfig, processes if self.name == "shards" else 0
            shards = self.work / f"{self.length}-train"
            data |= {"path": shards, "sequence_length": self.length, "workers": workers}
        model = {"vocab_size": Tokenizer.from_pretrained(tokenizer).vocab_size}
        settings = {"data": data, "model": model, "training": {"seed": seed}}
        share = Share(global_batch=self.batch, micro_batch=self.batch)
        batches = chain.from_iterable(data_loader(kind.model_validate(settings), share))
        return (unit_of(lengths_of(list(islice(batches, STEPS)))) for _ in count())


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
        loads = [DataLoad(stage, length, work, corpus, pairs, batch) for stage in STAGES]
        with reporter.task("write shards", total=1) as task:
            for block in loads[0].tasks(work):
                process_block(block)
            task.advance()
        counts = ascending(workers or {1, min(usable_cores(), 2), usable_cores()})
        groups = [[Case(one, counts if one.name in PARALLEL else (1,), benchmark)] for one in loads]
        return run_benchmark(groups, out, "Data", command=command, reporter=reporter)
