"""The road from text to batches, stage by stage, each with the code that a run uses."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from bart_cli.benchmark.loads import Shape, Work
from bart_cli.benchmark.spec import DataSpec
from bart_cli.config.data import DenoisingConfig, PretrainDataConfig, SummarizationDataConfig
from bart_cli.data.batch import IGNORE, Batch
from bart_cli.data.documents import plan_blocks
from bart_cli.data.order import Share
from bart_cli.data.pair_ids import load_encoded
from bart_cli.data.pairs import open_pairs
from bart_cli.data.preprocess.blocks import BlockTask, process_block
from bart_cli.data.pretrain_loader import PretrainLoader, SampleReader
from bart_cli.data.shards import open_shards
from bart_cli.data.summarization_loader import SummarizationLoader
from bart_cli.runtime.workers import worker_processes
from bart_cli.tokenizer import Tokenizer

BLOCK = 2**19  # bytes of text in one task: enough tasks for every process of a small corpus
STEPS = 16  # batches of one measurement


class DataLoad:
    """`prepare(n)`: with n processes. `run` is one pass over the corpus, or STEPS batches.

    preprocess: text -> samples (sentences, BPE, packing, parquet), items are bytes of text.
    denoise: samples in memory -> noised, padded batches, in this process.
    shards: the loader of pre-training with n worker processes. pairs: that of fine-tuning.
    """

    def __init__(self, spec: DataSpec, seed: int) -> None:
        self._spec, self._seed = spec, seed
        self._tokenizer = Tokenizer.from_pretrained(spec.tokenizer)
        self._passes = 0
        self._pool: Any = None
        self._stack = ExitStack()
        self._batches: Iterator[list[Batch]] = iter(())

    def prepare(self, size: int) -> None:
        """See Load."""
        self._stack.close()
        if self._spec.stage == "preprocess":
            self._pool = self._stack.enter_context(worker_processes(size))
        elif self._spec.stage == "denoise":
            self._batches = self._denoised()
        elif self._spec.stage == "shards":
            self._batches = iter(
                PretrainLoader(
                    self._spec.work / "shards",
                    PretrainDataConfig(sequence_length=self._spec.length, workers=size),
                    DenoisingConfig(),
                    self._tokenizer,
                    self._share(),
                    seed=self._seed,
                    decoder_start_id=self._tokenizer.eos_id,
                )
            )
        else:
            data = SummarizationDataConfig(path=self._spec.pairs)
            pairs = load_encoded(open_pairs(data), "train", None, data, self._tokenizer)
            self._batches = iter(
                SummarizationLoader(
                    pairs,
                    data,
                    self._tokenizer,
                    self._share(),
                    seed=self._seed,
                    decoder_start_id=self._tokenizer.eos_id,
                )
            )

    def run(self) -> Work:
        """See Load."""
        if self._spec.stage == "preprocess":
            return self._preprocess()
        batches = [batch for step in islice(self._batches, STEPS) for batch in step]
        real = sum(int(b.source_mask.sum()) + int((b.labels != IGNORE).sum()) for b in batches)
        return Work(items=sum(batch.sequences for batch in batches), tokens=real)

    def shape(self) -> Shape | None:
        """See Load: nothing is multiplied."""
        return None

    def _share(self) -> Share:
        return Share(global_batch=self._spec.batch, micro_batch=self._spec.batch)

    def _preprocess(self) -> Work:
        work = self._spec.work / "pass"
        shutil.rmtree(work, ignore_errors=True)
        tasks = block_tasks(self._spec, work)
        reports = list(self._pool.map(process_block, tasks))
        return Work(
            items=sum(task.block.end - task.block.begin for task in tasks),
            tokens=sum(report.tokens for report in reports),
        )

    def _denoised(self) -> Iterator[list[Batch]]:
        reader = SampleReader(
            open_shards(self._spec.work / "shards"),
            PretrainDataConfig(sequence_length=self._spec.length),
            DenoisingConfig(),
            self._tokenizer,
            self._seed,
            self._tokenizer.eos_id,
        )
        start, size = 0, self._spec.batch
        while True:
            yield reader.batches(np.arange(start, start + size, dtype=np.int64), size)
            start += size


def block_tasks(spec: DataSpec, work: Path) -> list[BlockTask]:
    """The corpus as tasks of preprocessing."""
    return [
        BlockTask(
            number=number,
            block=block,
            work=work,
            tokenizer=spec.tokenizer,
            target_lengths=(spec.length,),
            validation_share=0.0,
            cross_documents=False,
        )
        for number, block in enumerate(plan_blocks(spec.corpus, "lines", BLOCK))
    ]


def write_shards(spec: DataSpec) -> None:
    """Shards for the stages that read some: the blocks of the corpus, unbalanced."""
    work, shards = spec.work / "first", spec.work / "shards"
    shards.mkdir(parents=True, exist_ok=True)
    for task in block_tasks(spec, work):
        process_block(task)
        output = task.output(spec.length, "train")
        output.rename(shards / output.name)
    shutil.rmtree(work)
