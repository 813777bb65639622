"""Loads of the stages from text to batches, with the code of real runs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from bart_cli.benchmark.session import Case, Load, Unit, Units, lengths_of, unit_of
from bart_cli.config.model import ModelConfig
from bart_cli.config.run import FinetuneConfig, PretrainConfig
from bart_cli.data.batch import Batch, Collate
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
from bart_cli.runtime.world import World
from bart_cli.tokenizer import Tokenizer
from bart_cli.training.resume import TrainingRun

BLOCK = 2**19  # bytes of text per task, so that a small corpus has tasks for every process
STEPS = 16  # batches per unit of work
# Stage -> description, unit of its rate, and items per unit.
STAGES = {
    "preprocess": ("text to samples (sentences, BPE, packing)", "text, MB/s", 1e6),
    "denoise": ("noise and padding, one process", "samples/s", 1.0),
    "shards": ("loader of pre-training, its processes", "samples/s", 1.0),
    "pairs": ("loader of fine-tuning, one process", "pairs/s", 1.0),
}


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
        steps = data_loader(kind.model_validate(settings), share)
        while True:
            yield unit_of(lengths_of([one for step in islice(steps, STEPS) for one in step]))


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
