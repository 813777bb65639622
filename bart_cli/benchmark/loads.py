"""Loads of optimizer steps and decoding, with bart or transformers, on random tokens or data."""

# Legend: B sequences.

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch

from bart_cli.benchmark.cases import Case, DataSpec, DecodingSpec, TrainingRun, TrainingSpec
from bart_cli.benchmark.session import Load, Work
from bart_cli.config.model import ModelConfig
from bart_cli.config.run import PretrainConfig
from bart_cli.data.batch import IGNORE, Batch, Collate
from bart_cli.data.denoising import Ids
from bart_cli.data.order import Share
from bart_cli.errors import UsageError
from bart_cli.inference.engine import Engine
from bart_cli.inference.generate import generate
from bart_cli.inference.load import DTYPES
from bart_cli.model.bart import Bart
from bart_cli.model.formats import load_model, require_room
from bart_cli.runtime.flops import decoding_flops, training_flops
from bart_cli.runtime.precision import AUTOCAST, apply_matmul_precision, is_emulated
from bart_cli.runtime.world import World

Item = TypeVar("Item")
POOL = 16  # number of different batches, used in turn
POOL_TOKENS = 2**22  # tokens of all batches in the pool
# Deciles (0%, 10% … 100%) of token counts of 700 CNN-DailyMail pairs under BART's BPE.
ARTICLES = (114, 274, 381, 493, 609, 720, 855, 971, 1145, 1398, 2208)
SUMMARIES = (14, 29, 33, 36, 40, 43, 48, 52, 56, 63, 88)
# A noised sample keeps 70% of its tokens, with one <mask> per span of 3.5 on average.
NOISED = 0.7 + 0.3 / 3.5
RATE = 1e-6  # learning rate; small, so that the weights do not diverge on random tokens

Step = Callable[[list[Batch]], None]  # of the optimizer, on its micro-batches
MakeStep = Callable[[Bart, TrainingRun, World, float], Step]
Sources = list[list[int]]  # ids of a batch of articles


def pool_of(count: int, longest: int, make: Callable[[], Item]) -> Iterator[Item]:
    """Make batches of `count` rows, fewer if they are large, and yield them in turn forever.

    Raises:
        MemoryError: the ids of a batch (four tensors) exceed the memory of this machine.
    """
    if 4 * 8 * count * longest > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):
        raise MemoryError
    return cycle([make() for _ in range(max(1, min(POOL, POOL_TOKENS // (count * longest))))])


def draw_lengths(
    rng: np.random.Generator,
    deciles: tuple[int, ...],
    count: int,
    longest: int,
    lengths: Literal["real", "full"],
) -> Ids:
    """Draw token counts from a distribution given by its deciles, limited to `longest`."""
    if lengths == "full":
        return np.full(count, longest, dtype=np.int64)
    drawn = np.interp(rng.random(count), np.linspace(0, 1, len(deciles)), deciles)
    return np.clip(drawn.round().astype(np.int64), 3, longest)


def random_rows(rng: np.random.Generator, lengths_B: Ids, config: ModelConfig) -> list[Ids]:
    """Draw rows of these lengths: <s>, random tokens, </s>."""
    first = max(config.bos_token_id, config.pad_token_id, config.eos_token_id) + 1
    tokens = rng.integers(first, config.vocab_size, int(lengths_B.sum()), dtype=np.int64)
    rows = np.split(tokens, np.cumsum(lengths_B)[:-1])
    for row in rows:
        row[0], row[-1] = config.bos_token_id, config.eos_token_id
    return rows


def make_load(case: Case, world: World) -> Load:
    """Make the load of a case on one rank."""
    if isinstance(case.load, DataSpec):
        from bart_cli.benchmark.data_load import DataLoad

        return DataLoad(case, world)
    return (TrainingLoad if isinstance(case.load, TrainingSpec) else DecodingLoad)(case, world)


def generator(case: Case, size: int, world: World) -> np.random.Generator:
    """Make the generator of batches of this size, which are the same on both sides."""
    return np.random.default_rng((case.benchmark.seed, size, world.rank))


class TrainingLoad(Load):
    """Load of training. A unit is an optimizer step: forward, backward, all-reduce, update."""

    def __init__(self, case: Case, world: World) -> None:
        super().__init__(case, world)
        assert isinstance(case.load, TrainingSpec)
        self._settings = run = case.load.run
        config, precision = run.model, run.training.precision
        dtype = AUTOCAST.get(precision, torch.float32)
        if is_emulated(precision, world.device):  # its products are computed in fp32, and rounded
            dtype = torch.float32
        self.product = config.d_model, config.encoder_ffn_dim, dtype
        make: MakeStep = bart_step
        if case.side == "transformers":
            from bart_cli.benchmark.transformers_load import transformers_step

            make = transformers_step
        torch.manual_seed(case.benchmark.seed)
        self._step = make(Bart(config), run, world, RATE)

    def units(self, size: int) -> Iterator[Work]:
        """See Load."""
        if self._settings.data.path is None:
            return map(self._run, self._random(size))
        from bart_cli.benchmark.data_load import data_loader

        ranks = self._world.size
        total = size * self._benchmark.accumulation * ranks
        share = Share(total, size, self._world.rank, ranks)
        return map(self._run, data_loader(self._settings, share))

    def _run(self, micro: list[Batch]) -> Work:
        self._step(micro)
        lengths = [(batch.source_mask.sum(1), (batch.labels != IGNORE).sum(1)) for batch in micro]
        return Work(
            items=self._world.size * sum(batch.sequences for batch in micro),
            tokens=self._world.size * sum(int(s.sum() + t.sum()) for s, t in lengths),
            flops=sum(training_flops(self._settings.model, *pair) for pair in lengths),
        )

    def _random(self, size: int) -> Iterator[list[Batch]]:
        run, config, lengths = self._settings, self._settings.model, self._benchmark.lengths
        rng, longest = generator(self._case, size, self._world), self._case.load.length
        start, positions = config.decoder_start_token_id, config.max_position_embeddings
        collate = Collate(config.pad_token_id, start, positions)

        def batch() -> Batch:
            if isinstance(run, PretrainConfig):
                targets = np.full(size, longest)
                share = NOISED if lengths == "real" else 1.0
                sources = np.maximum(3, (targets * share).astype(np.int64))
            else:
                sources = draw_lengths(rng, ARTICLES, size, longest, lengths)
                targets = draw_lengths(rng, SUMMARIES, size, run.data.max_target_length, lengths)
            return collate(random_rows(rng, sources, config), random_rows(rng, targets, config))

        micro = range(self._benchmark.accumulation)
        return pool_of(size * len(micro), longest, lambda: [batch() for _ in micro])


def bart_step(model: Bart, run: TrainingRun, world: World, rate: float) -> Step:
    """Make the step of the training loop. As in the loop, losses are read one step late."""
    from bart_cli.training import loop  # torch._dynamo comes with it
    from bart_cli.training.checkpoint import Progress
    from bart_cli.training.setup import equip, place

    training = run.training
    model = place(model, training, world).train()
    optimizer, scaler = equip(model, training, run.optimizer, world)
    job = loop.Job(
        run=Path(),
        world=world,
        model=model,
        tokenizer=None,  # type: ignore[arg-type]  # only checkpoints need it
        optimizer=optimizer,
        scaler=scaler,
        batches=iter(()),
        training=training,
        optimizer_config=run.optimizer,
        schedule=lambda step: rate,
        progress=Progress(),
    )
    parameters = [p for p in model.parameters() if p.requires_grad]
    gradients = loop.gradient_sum(world, parameters, training)
    unread: deque[loop.StepNumbers] = deque()

    def step(micro: list[Batch]) -> None:
        loss, _ = loop.forward_backward(job, micro, gradients)
        norm = loop.update(job, parameters, rate)
        job.progress.step += 1
        unread.append(loop.StepNumbers(job.progress.step, world, loss, norm))
        loop.read_numbers(job, unread, keep=1)

    return step


class DecodingLoad(Load):
    """Load of decoding. A unit is one batch.

    Random weights are equal on both sides of a comparison. They never end a hypothesis, so every
    hypothesis has the full length.
    """

    def __init__(self, case: Case, world: World) -> None:
        super().__init__(case, world)
        assert isinstance(case.load, DecodingSpec)
        self._spec = spec = case.load
        apply_matmul_precision("tf32" if case.precision == "tf32" else "fp32")
        self._generation, self._tokenizer, dtype = spec.generation, None, DTYPES[case.precision]
        if spec.model_path is not None:
            loaded = load_model(spec.model_path, device=world.device, dtype=dtype)
            model, self._tokenizer = loaded.model, loaded.tokenizer
        else:
            torch.manual_seed(case.benchmark.seed)
            model = Bart(spec.model).to(device=world.device, dtype=dtype).eval()
            full = {"min_length": spec.generation.max_length}
            self._generation = spec.generation.model_copy(update=full)
        config, int8 = model.config, case.precision == "int8"
        self._config = config
        self.product = None if int8 else (config.d_model, config.encoder_ffn_dim, dtype)
        if case.side == "transformers":
            from bart_cli.benchmark.transformers_load import transformers_decoder

            self._decode = transformers_decoder(model, self._generation)
        else:
            engine = Engine(model, int8=int8)

            def decode(sources: Sources) -> list[int]:
                found = generate(engine, sources, self._generation, batch_size=len(sources))
                return [len(best.tokens) for best, *_ in found]

            self._decode = decode

    def units(self, size: int) -> Iterator[Work]:
        """See Load."""
        longest = min(self._spec.length, self._config.max_position_embeddings)
        batches = self._random if self._spec.data is None else self._from_data
        return map(self._run, batches(size, longest))

    def _run(self, sources: Sources) -> Work:
        lengths = self._decode(sources)
        counts = torch.tensor([len(row) for row in sources]), torch.tensor(lengths)
        return Work(
            items=self._world.size * len(sources),
            tokens=self._world.size * sum(int(count.sum()) for count in counts),
            flops=decoding_flops(self._config, *counts, self._generation.beams),
        )

    def _random(self, size: int, longest: int) -> Iterator[Sources]:
        rng = generator(self._case, size, self._world)

        def batch() -> Sources:
            drawn = draw_lengths(rng, ARTICLES, size, longest, self._benchmark.lengths)
            return [row.tolist() for row in random_rows(rng, drawn, self._config)]

        return pool_of(size, longest, batch)

    def _from_data(self, size: int, longest: int) -> Iterator[Sources]:
        from bart_cli.benchmark.data_load import fitting_tokenizer
        from bart_cli.data.pairs import read_pairs

        data = self._spec.data
        assert data is not None
        words = self._tokenizer or fitting_tokenizer(data, None, self._config)
        require_room(words, self._config)
        texts = [pair.source for pair in read_pairs(data, "test")]
        rows = words.fitted(self._config.vocab_size).encode_batch(texts, max_length=longest)
        mine = rows[self._world.rank :: self._world.size]
        if len(mine) < size:
            raise UsageError(
                f"--batch-size {size}: {data} has {len(mine):,} test articles per process"
            )
        return cycle([mine[i : i + size] for i in range(0, len(mine) - size + 1, size)])
