"""Batches of articles through the real decoder, with random weights or a trained model."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle

import numpy as np
import torch

from bart_cli.benchmark.loads import Shape, Work
from bart_cli.benchmark.plan import load_generation
from bart_cli.benchmark.random_tokens import check_memory, pool_size, random_articles
from bart_cli.benchmark.spec import ArmSpec, DecodingSpec
from bart_cli.config.generation import GenerationConfig
from bart_cli.config.model import ModelConfig
from bart_cli.errors import UsageError
from bart_cli.inference.engine import Engine
from bart_cli.inference.generate import generate
from bart_cli.inference.load import DTYPES
from bart_cli.model.bart import Bart
from bart_cli.model.formats import load_model, require_room
from bart_cli.runtime.flops import training_flops
from bart_cli.runtime.precision import apply_matmul_precision
from bart_cli.runtime.world import World
from bart_cli.tokenizer import Tokenizer

POOL = 16  # different batches of random tokens, used in turn


class DecodingLoad:
    """`run` decodes one batch."""

    def __init__(self, spec: DecodingSpec, arm: ArmSpec, world: World) -> None:
        self._spec, self._arm, self._world = spec, arm, world
        model, self._tokenizer, self._generation = decoding_model(spec, arm, world)
        self._model = Engine(model, int8=arm.precision == "int8")
        self._batches: Iterator[list[list[int]]] = iter(())
        self._size = 0

    def prepare(self, size: int) -> None:
        """See Load."""
        self._size = size
        self._batches = article_batches(
            self._spec, self._arm, self._world, size, self._model.config, self._tokenizer
        )

    def run(self) -> Work:
        """See Load."""
        sources = next(self._batches)
        found = generate(self._model, sources, self._generation, batch_size=len(sources))
        lengths = [len(hypotheses[0].tokens) for hypotheses in found]
        return decoding_work(
            self._model.config, sources, lengths, self._generation.beams, self._world
        )

    def shape(self) -> Shape | None:
        """See Load."""
        return decoding_shape(self._spec, self._arm, self._size, self._model.config)


def decoding_model(
    spec: DecodingSpec, arm: ArmSpec, world: World
) -> tuple[Bart, Tokenizer | None, GenerationConfig]:
    """The model of an arm, its tokenizer if it is a trained one, and how it decodes.

    Random weights are the same on both sides of a comparison. They know no end, so every hypothesis
    is made as long as can be.
    """
    apply_matmul_precision("tf32" if arm.precision == "tf32" else "fp32")
    if spec.model_path is not None:
        loaded = load_model(spec.model_path, device=world.device, dtype=DTYPES[arm.precision])
        settings = spec.generation
        if spec.own_settings and loaded.generation is not None:
            settings = load_generation(loaded.generation, spec.changes)
        return loaded.model, loaded.tokenizer, settings
    torch.manual_seed(arm.benchmark.seed)
    model = Bart(spec.model).to(device=world.device, dtype=DTYPES[arm.precision]).eval()
    longest = spec.generation.max_length
    return model, None, spec.generation.model_copy(update={"min_length": longest})


def article_batches(
    spec: DecodingSpec,
    arm: ArmSpec,
    world: World,
    size: int,
    config: ModelConfig,
    tokenizer: Tokenizer | None,
) -> Iterator[list[list[int]]]:
    """This rank's batches of source ids, endless.

    Raises:
        UsageError: the data has too few articles, or no tokenizer fits the model.
    """
    longest = min(spec.length, config.max_position_embeddings)
    if spec.data is None:
        rng = np.random.default_rng((arm.benchmark.seed, size, world.rank))
        lengths = arm.benchmark.lengths
        check_memory(size, longest)
        count = pool_size(size, longest, POOL)
        pool = [random_articles(rng, size, longest, config, lengths) for _ in range(count)]
        return cycle(pool)
    from bart_cli.benchmark.training_load import data_tokenizer
    from bart_cli.data.pairs import read_pairs

    words = tokenizer or data_tokenizer(spec.data, None)
    require_room(words, config)
    texts = [pair.source for pair in read_pairs(spec.data, "test")]
    rows = words.fitted(config.vocab_size).encode_batch(texts)
    rows = [row if len(row) <= longest else [*row[: longest - 1], row[-1]] for row in rows]
    mine = rows[world.rank :: world.size]
    if len(mine) < size:
        raise UsageError(
            f"--batch-size {size}: {spec.data} has {len(mine):,} test articles per process"
        )
    return cycle([mine[i : i + size] for i in range(0, len(mine) - size + 1, size)])


def decoding_work(
    config: ModelConfig, sources: list[list[int]], lengths: list[int], beams: int, world: World
) -> Work:
    """Articles of all ranks; real tokens and FLOPs of this one.

    A forward pass is a third of a training step. The source is read once, each beam decodes.
    """
    source = torch.tensor([len(row) for row in sources])
    target = torch.tensor(lengths)
    reading = training_flops(config, source, torch.zeros_like(target)) / 3
    writing = training_flops(config, source, target) / 3 - reading
    return Work(
        items=world.size * len(sources),
        tokens=int(source.sum() + target.sum()),
        flops=reading + beams * writing,
    )


def decoding_shape(
    spec: DecodingSpec, arm: ArmSpec, size: int, config: ModelConfig
) -> Shape | None:
    """The feed-forward of the encoder; none for int8, whose products are of another kind."""
    if arm.precision not in DTYPES or arm.precision == "int8":
        return None
    dtype = DTYPES[arm.precision]
    return Shape(size * spec.length, config.d_model, config.encoder_ffn_dim, dtype)
