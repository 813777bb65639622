"""Optimizer steps of the real training loop, on random tokens or on a data set."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bart_cli.benchmark.loads import Shape, Work
from bart_cli.benchmark.random_tokens import (
    check_memory,
    pool_size,
    random_pairs,
    random_samples,
)
from bart_cli.benchmark.spec import ArmSpec, TrainingSpec
from bart_cli.config.run import FinetuneConfig, PretrainConfig
from bart_cli.data.batch import IGNORE, Batch
from bart_cli.data.order import Share
from bart_cli.errors import UsageError
from bart_cli.model.bart import Bart
from bart_cli.runtime.flops import training_flops
from bart_cli.runtime.precision import AUTOCAST
from bart_cli.runtime.world import World
from bart_cli.tokenizer import Tokenizer
from bart_cli.training.loop import Job, StepNumbers, forward_backward, gradient_sum, update
from bart_cli.training.setup import equip, place
from bart_cli.training.state import Progress

POOL = 8  # different steps of random tokens, used in turn
RATE = 1e-6  # small, so that random tokens cannot blow the weights up


class TrainingLoad:
    """`run` is one optimizer step: forward, backward, all-reduce, clip, update."""

    def __init__(self, spec: TrainingSpec, arm: ArmSpec, world: World) -> None:
        self._spec, self._arm, self._world = spec, arm, world
        self._steps: Iterator[list[Batch]] = iter(())
        self._micro = 0
        training = spec.run.training
        torch.manual_seed(arm.benchmark.seed)
        model = place(Bart(spec.run.model), training, world).train()
        self.config = model.config
        optimizer, scaler = equip(model, training, spec.run.optimizer, world)
        self._job = Job(
            run=Path(),
            world=world,
            model=model,
            tokenizer=None,  # type: ignore[arg-type]  # only checkpoints need it
            optimizer=optimizer,
            scaler=scaler,
            batches=iter(()),
            training=training,
            optimizer_config=spec.run.optimizer,
            schedule=lambda step: RATE,
            progress=Progress(),
        )
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._gradients = gradient_sum(world, self._parameters, training)
        self._numbers: StepNumbers | None = None  # of the last step, not read yet

    def prepare(self, size: int) -> None:
        """See Load."""
        self._micro = size
        self._steps = training_steps(self._spec, self._arm, self._world, size)

    def run(self) -> Work:
        """See Load. The loss of every step is read one step late, as in the loop."""
        micro = next(self._steps)
        loss, _ = forward_backward(self._job, micro, self._gradients)
        norm = update(self._job, self._parameters, RATE)
        self._job.progress.step += 1
        previous, self._numbers = self._numbers, StepNumbers(0, self._world, loss, norm)
        if previous is not None:
            previous.read()
        return work_of(micro, self._spec, self._world)

    def shape(self) -> Shape:
        """See Load."""
        return training_shape(self._spec, self._micro)


def training_shape(spec: TrainingSpec, size: int) -> Shape:
    """The feed-forward of the encoder."""
    model = spec.run.model
    dtype = AUTOCAST.get(spec.run.training.precision, torch.float32)
    return Shape(size * spec.length, model.d_model, model.encoder_ffn_dim, dtype)


def work_of(micro: list[Batch], spec: TrainingSpec, world: World) -> Work:
    """Sequences of all ranks; real tokens and FLOPs of this one."""
    pairs = [(batch.source_mask.sum(1), (batch.labels != IGNORE).sum(1)) for batch in micro]
    return Work(
        items=world.size * sum(batch.sequences for batch in micro),
        tokens=sum(int(source.sum() + target.sum()) for source, target in pairs),
        flops=sum(training_flops(spec.run.model, *pair) for pair in pairs),
    )


def training_steps(
    spec: TrainingSpec, arm: ArmSpec, world: World, size: int
) -> Iterator[list[Batch]]:
    """This rank's micro-batches of one step after the other, endless.

    Raises:
        UsageError: there is a data folder, but not with what the run needs.
    """
    if spec.run.data.path is not None:
        return _from_data(spec.run, arm, world, size)
    return _random(spec, arm, world, size)


def _random(spec: TrainingSpec, arm: ArmSpec, world: World, size: int) -> Iterator[list[Batch]]:
    benchmark, model = arm.benchmark, spec.run.model
    rng = np.random.default_rng((benchmark.seed, size, world.rank))

    def batch() -> Batch:
        if isinstance(spec.run, PretrainConfig):
            return random_samples(rng, size, spec.length, model, benchmark.lengths)
        longest = (spec.length, spec.target_length)
        return random_pairs(rng, size, longest, model, benchmark.lengths)

    check_memory(size, spec.length)
    count = pool_size(size * benchmark.accumulation, spec.length, POOL)
    pool = [[batch() for _ in range(benchmark.accumulation)] for _ in range(count)]
    return cycle(pool)


def _from_data(
    run: PretrainConfig | FinetuneConfig, arm: ArmSpec, world: World, size: int
) -> Iterator[list[Batch]]:
    share = Share(
        global_batch=size * arm.benchmark.accumulation * world.size,
        micro_batch=size,
        rank=world.rank,
        world_size=world.size,
    )
    assert run.data.path is not None
    options: dict[str, Any] = {
        "seed": run.training.seed,
        "decoder_start_id": run.model.training_start_id,
        "positions": run.model.max_position_embeddings,
    }
    if isinstance(run, PretrainConfig):
        from bart_cli.data.inspect import find_tokenizer
        from bart_cli.data.pretrain_loader import PretrainLoader
        from bart_cli.data.shards import resolve_shards

        folder = resolve_shards(run.data.path, run.data.sequence_length)
        words = (
            Tokenizer.from_pretrained(run.data.tokenizer)
            if run.data.tokenizer
            else find_tokenizer(folder)
        )
        _check_vocabulary(words, run)
        return iter(PretrainLoader(folder, run.data, run.denoising, words, share, **options))
    from bart_cli.data.pair_ids import load_encoded
    from bart_cli.data.pairs import open_pairs
    from bart_cli.data.summarization_loader import SummarizationLoader

    words = data_tokenizer(run.data.path, run.data.tokenizer)
    _check_vocabulary(words, run)
    pairs = load_encoded(open_pairs(run.data), "train", run.data.n_train, run.data, words)
    return iter(SummarizationLoader(pairs, run.data, words, share, **options))


def data_tokenizer(path: Path, name: str | None) -> Tokenizer:
    """The named tokenizer, or the one that `bart preprocess` left beside the pairs.

    Raises:
        UsageError: neither.
    """
    if name is not None:
        return Tokenizer.from_pretrained(name)
    if (path / "tokenizer").is_dir():
        return Tokenizer.from_pretrained(path / "tokenizer")
    raise UsageError(
        f"no tokenizer next to the pairs in {path}",
        hint="Pass --set data.tokenizer=FOLDER, or data from `bart preprocess summarization`.",
    )


def _check_vocabulary(words: Tokenizer, run: PretrainConfig | FinetuneConfig) -> None:
    if words.vocab_size > run.model.vocab_size:
        raise UsageError(
            f"the data's tokenizer has {words.vocab_size:,} entries, but the model has "
            f"{run.model.vocab_size:,} embeddings",
            hint=f"Pass --set model.vocab_size={words.vocab_size}.",
        )
