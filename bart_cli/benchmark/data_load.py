"""Loads of the stages from text to batches, with the code of real runs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from bart_cli.benchmark.cases import DataSpec, TrainingRun
from bart_cli.benchmark.session import Load, Work
from bart_cli.config.model import ModelConfig
from bart_cli.config.run import FinetuneConfig, PretrainConfig
from bart_cli.data.batch import IGNORE, Batch, Collate
from bart_cli.data.documents import plan_blocks
from bart_cli.data.order import Share
from bart_cli.data.pair_ids import load_encoded
from bart_cli.data.pairs import PairSource
from bart_cli.data.preprocess.blocks import BlockTask, PreprocessSettings, process_block
from bart_cli.data.pretrain_loader import PretrainLoader
from bart_cli.data.shards import find_tokenizer, resolve_shards
from bart_cli.data.summarization_loader import SummarizationLoader
from bart_cli.model.formats import require_room
from bart_cli.runtime.workers import worker_processes
from bart_cli.tokenizer import Tokenizer

BLOCK = 2**19  # bytes of text per task, so that a small corpus has tasks for every process
STEPS = 16  # batches per unit of work


class DataLoad(Load):
    """Load of a stage. A unit is a pass over the corpus, or STEPS batches.

    `units(n)` sets the number of processes. The stages are:

    - preprocess: text to samples (sentences, BPE, packing, Parquet); items are bytes of text.
    - denoise: samples to noised, padded batches, in this process.
    - shards: the same with n worker processes of the loader.
    - pairs: the loader of fine-tuning.
    """

    def units(self, size: int) -> Iterator[Work]:
        """See Load."""
        spec = self._case.load
        assert isinstance(spec, DataSpec)
        if spec.name == "preprocess":
            return _preprocess(spec, size)
        kind: type[TrainingRun] = FinetuneConfig
        data: dict[str, object] = {"path": spec.pairs, "tokenizer": str(spec.tokenizer)}
        if spec.name != "pairs":
            kind, workers = PretrainConfig, size if spec.name == "shards" else 0
            data |= {"path": spec.shards, "sequence_length": spec.length, "workers": workers}
        model = {"vocab_size": Tokenizer.from_pretrained(spec.tokenizer).vocab_size}
        settings = {"data": data, "model": model, "training": {"seed": self._benchmark.seed}}
        share = Share(global_batch=spec.batch, micro_batch=spec.batch)
        return _in_units(data_loader(kind.model_validate(settings), share))


def _preprocess(spec: DataSpec, processes: int) -> Iterator[Work]:
    work = spec.work / "pass"
    tasks = block_tasks(spec, work)
    size = sum(block.end - block.begin for task in tasks for block in task.blocks)
    with worker_processes(processes) as pool:
        while True:
            shutil.rmtree(work, ignore_errors=True)
            reports = pool.map(process_block, tasks)
            yield Work(items=size, tokens=sum(report.tokens for report in reports))


def _in_units(steps: Iterator[list[Batch]]) -> Iterator[Work]:
    while True:
        batches = [batch for step in islice(steps, STEPS) for batch in step]
        real = sum(int(b.source_mask.sum()) + int((b.labels != IGNORE).sum()) for b in batches)
        yield Work(items=sum(batch.sequences for batch in batches), tokens=real)


def data_loader(run: TrainingRun, share: Share) -> Iterator[list[Batch]]:
    """Open the data of a run, and yield this rank's micro-batches of each step.

    Raises:
        UsageError: `run.data.path` has no shards or pairs, or their tokenizer is not the model's.
    """
    assert run.data.path is not None
    model = run.model
    if isinstance(run, PretrainConfig):
        folder = resolve_shards(run.data.path, run.data.sequence_length)
        words = fitting_tokenizer(folder, run.data.tokenizer, model)
        return iter(PretrainLoader(folder, run, words, share, Collate.of(words, model)))
    source = PairSource(run.data)
    words = fitting_tokenizer(run.data.path, run.data.tokenizer, model)
    pairs = load_encoded(source, "train", run.data.n_train, run.data, words)
    seed, collate = run.training.seed, Collate.of(words, model)
    return iter(SummarizationLoader(pairs, run.data, share, seed=seed, collate=collate))


def fitting_tokenizer(data: Path, name: str | None, model: ModelConfig) -> Tokenizer:
    """Load the named tokenizer, or the one next to the data.

    Raises:
        UsageError: there is no tokenizer, or the model lacks embeddings for many of its entries.
    """
    words = find_tokenizer(data, name)
    require_room(words, model, hint=f"Pass --set model.vocab_size={words.vocab_size}.")
    return words.fitted(model.vocab_size)


def block_tasks(spec: DataSpec, work: Path) -> list[BlockTask]:
    """Divide the corpus into tasks of `process_block`, each of which writes a shard."""
    settings = PreprocessSettings(
        (("corpus", spec.corpus, "lines"),), (spec.length,), validation_share=0.0
    )
    return [
        BlockTask(number, (block,), work, spec.tokenizer, settings)
        for number, block in enumerate(plan_blocks(spec.corpus, "lines", BLOCK))
    ]
