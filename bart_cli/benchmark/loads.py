"""Loads of optimizer steps and decoding, with bart or transformers, on random tokens or data.

Random batches depend on seed, size and rank, so they are the same on both sides of a comparison.
"""

# Legend: B sequences.

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import nn

from bart_cli.benchmark.session import Case, Load, Product, Unit, Units, lengths_of, unit_of
from bart_cli.config.generation import GenerationConfig
from bart_cli.config.model import ModelConfig
from bart_cli.config.run import PretrainConfig
from bart_cli.data.batch import Batch, Collate, pad_rows
from bart_cli.data.denoising import Ids
from bart_cli.data.order import Share
from bart_cli.data.pairs import PairSource, read_pairs
from bart_cli.errors import UsageError
from bart_cli.inference.engine import Engine
from bart_cli.inference.generate import generate
from bart_cli.inference.load import DTYPES
from bart_cli.model.bart import Bart
from bart_cli.model.formats import load_model, require_room
from bart_cli.model.hf_config import generation_to_hf, to_hf
from bart_cli.runtime.flops import decoding_flops, training_flops
from bart_cli.runtime.precision import apply_matmul_precision, autocast, make_scaler, product_dtype
from bart_cli.runtime.world import World
from bart_cli.tokenizer import Tokenizer
from bart_cli.training import loop
from bart_cli.training.checkpoint import Progress
from bart_cli.training.resume import TrainingRun
from bart_cli.training.setup import equip, place

Item = TypeVar("Item")
Lengths = Literal["real", "full"]
POOL = 16  # number of different batches, used in turn
POOL_TOKENS = 2**22  # tokens of all batches in the pool
# Deciles (0%, 10% … 100%) of token counts of 700 CNN-DailyMail pairs under BART's BPE.
ARTICLES = (114, 274, 381, 493, 609, 720, 855, 971, 1145, 1398, 2208)
SUMMARIES = (14, 29, 33, 36, 40, 43, 48, 52, 56, 63, 88)
# A noised sample keeps 70% of its tokens, with one <mask> per span of 3.5 on average.
NOISED = 0.7 + 0.3 / 3.5
RATE = 1e-6  # learning rate; small, so that the weights do not diverge on random tokens

Step = Callable[[list[Batch]], None]  # of the optimizer, on its micro-batches
Sources = list[list[int]]  # ids of a batch of articles
Decode = Callable[[Sources], list[int]]  # returns the lengths of the targets


def pool_of(count: int, longest: int, make: Callable[[], Item]) -> Iterator[Item]:
    """Make batches of `count` rows, fewer if they are large, and yield them in turn forever.

    Raises:
        MemoryError: the ids of a batch (four tensors) exceed the memory of this machine.
    """
    if 4 * 8 * count * longest > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):
        raise MemoryError
    return cycle([make() for _ in range(max(1, min(POOL, POOL_TOKENS // (count * longest))))])


def draw_lengths(
    rng: np.random.Generator, deciles: tuple[int, ...], count: int, longest: int, lengths: Lengths
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


@dataclass(frozen=True)
class TrainingLoad(Load):
    """Optimizer steps of a run, on random tokens unless `run.data.path` is set.

    A unit is a step: forward, backward, all-reduce, update.
    """

    run: TrainingRun

    def start(self, case: Case, world: World) -> tuple[Product | None, Units]:
        """See Load."""
        run, config = self.run, self.run.model
        torch.manual_seed(case.benchmark.seed)
        make = bart_step if case.side == "bart" else transformers_step
        step = make(Bart(config), run, world, RATE)

        def work(micro: list[Batch]) -> Unit:
            step(micro)
            return unit_of(lengths_of(micro), partial(training_flops, config), world.size)

        def units(size: int) -> Iterator[Unit]:
            micro = range(case.benchmark.accumulation)
            if run.data.path is not None:
                share = Share(size * len(micro) * world.size, size, world.rank, world.size)
                return map(work, data_loader(run, share))
            rng = np.random.default_rng((case.benchmark.seed, size, world.rank))
            draw = partial(self._random, rng, size, case.benchmark.lengths)
            step_size = size * len(micro)
            return map(work, pool_of(step_size, self.length, lambda: [draw() for _ in micro]))

        dtype = product_dtype(run.training.precision, world.device)
        return (config.d_model, config.encoder_ffn_dim, dtype), units

    def _random(self, rng: np.random.Generator, size: int, lengths: Lengths) -> Batch:
        """Draw a batch of noised samples, or of pairs of article and summary."""
        config, longest = self.run.model, self.length
        if isinstance(self.run, PretrainConfig):
            targets = np.full(size, longest)
            share = NOISED if lengths == "real" else 1.0
            sources = np.maximum(3, (targets * share).astype(np.int64))
        else:
            sources = draw_lengths(rng, ARTICLES, size, longest, lengths)
            targets = draw_lengths(rng, SUMMARIES, size, self.run.data.max_target_length, lengths)
        start, positions = config.decoder_start_token_id, config.max_position_embeddings
        collate = Collate(config.pad_token_id, start, positions)
        return collate(random_rows(rng, sources, config), random_rows(rng, targets, config))


def data_loader(run: TrainingRun, share: Share) -> Iterator[list[Batch]]:
    """Open the data of a run, and yield this rank's micro-batches of each step.

    Raises:
        UsageError: `run.data.path` has no shards or pairs, or their tokenizer is not the model's.
    """
    # Imported here, because pyarrow would add to the peak memory of other loads.
    from bart_cli.data.pair_ids import load_encoded
    from bart_cli.data.pretrain_loader import PretrainLoader
    from bart_cli.data.shards import resolve_shards
    from bart_cli.data.summarization_loader import SummarizationLoader

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
    from bart_cli.data.shards import find_tokenizer

    words = find_tokenizer(data, name)
    require_room(words, model, hint=f"Pass --set model.vocab_size={words.vocab_size}.")
    return words.fitted(model.vocab_size)


def bart_step(model: Bart, run: TrainingRun, world: World, rate: float) -> Step:
    """Make the step of the training loop. As in the loop, losses are read one step late."""
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
    unread: deque[loop.StepNumbers] = deque()

    def step(micro: list[Batch]) -> None:
        loss, _ = loop.forward_backward(job, micro)
        norm = loop.update(job, rate)
        job.progress.step += 1
        unread.append(loop.StepNumbers(job.progress.step, world, loss, norm))
        loop.read_numbers(job, unread, keep=1)

    return step


def twin(ours: Bart) -> Any:
    """Build the model of `transformers` with the same weights.

    It has no attention dropout, so that it can use its fast kernels.
    """
    import transformers

    config = transformers.AutoConfig.for_model(**to_hf(ours.config))
    model = transformers.AutoModelForSeq2SeqLM.from_config(config)
    model.load_state_dict(ours.state_dict(), strict=False)
    model.tie_weights()
    return model


def transformers_step(ours: Bart, run: TrainingRun, world: World, rate: float) -> Step:
    """Make the step of a plain loop: autocast, fused AdamW, DistributedDataParallel."""
    precision, device, optimizer_config = run.training.precision, world.device, run.optimizer
    apply_matmul_precision(precision)
    inner = twin(ours).to(device).train()
    if run.training.activation_checkpointing:
        inner.gradient_checkpointing_enable()
    inner.config.use_cache = False
    model: nn.Module = inner
    if world.size > 1:
        devices = [device] if device.type == "cuda" else None
        model = nn.parallel.DistributedDataParallel(inner, device_ids=devices)
    decay = optimizer_config.weight_decay
    optimizer = torch.optim.AdamW(inner.parameters(), lr=rate, weight_decay=decay, fused=True)
    scaler = make_scaler(precision, device)

    def step(micro: list[Batch]) -> None:
        optimizer.zero_grad(set_to_none=True)
        for batch in micro:
            here = batch.to(device)
            with autocast(precision, device):
                loss = model(
                    input_ids=here.source,
                    attention_mask=here.source_mask.long(),
                    decoder_input_ids=here.decoder_input,
                    labels=here.labels,
                ).loss
            scaler.scale(loss / len(micro)).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(inner.parameters(), optimizer_config.clip_norm or float("inf"))
        scaler.step(optimizer)
        scaler.update()
        loss.item()

    return step


@dataclass(frozen=True)
class DecodingLoad(Load):
    """Decoding of batches of articles, random tokens if `data` is None. A unit is one batch.

    Random weights are equal on both sides of a comparison. They never end a hypothesis, so every
    hypothesis has the full length.

    Attributes:
        model_path: trained model; None: random weights of `model`.
    """

    model: ModelConfig
    generation: GenerationConfig
    model_path: str | None = None
    data: Path | None = None

    def start(self, case: Case, world: World) -> tuple[Product | None, Units]:
        """See Load."""
        apply_matmul_precision("tf32" if case.precision == "tf32" else "fp32")
        generation, tokenizer, dtype = self.generation, None, DTYPES[case.precision]
        if self.model_path is not None:
            loaded = load_model(self.model_path, device=world.device, dtype=dtype)
            model, tokenizer = loaded.model, loaded.tokenizer
        else:
            torch.manual_seed(case.benchmark.seed)
            model = Bart(self.model).to(device=world.device, dtype=dtype).eval()
            generation = generation.model_copy(update={"min_length": generation.max_length})
        config, int8 = model.config, case.precision == "int8"
        if case.side == "transformers":
            decode = transformers_decoder(model, generation)
        else:
            engine = Engine(model, int8=int8)

            def decode(sources: Sources) -> list[int]:
                found = generate(engine, sources, generation, batch_size=len(sources))
                return [len(best.tokens) for best, *_ in found]

        def work(sources: Sources) -> Unit:
            lengths = torch.tensor([len(row) for row in sources]), torch.tensor(decode(sources))
            flops = partial(decoding_flops, config, beams=generation.beams)
            return unit_of([lengths], flops, world.size)

        def units(size: int) -> Iterator[Unit]:
            longest = min(self.length, config.max_position_embeddings)
            if self.data is not None:
                if tokenizer is None:
                    words = fitting_tokenizer(self.data, None, config)
                else:
                    require_room(tokenizer, config)
                    words = tokenizer.fitted(config.vocab_size)
                return map(work, real_articles(self.data, words, size, longest, world))
            rng = np.random.default_rng((case.benchmark.seed, size, world.rank))

            def batch() -> Sources:
                drawn = draw_lengths(rng, ARTICLES, size, longest, case.benchmark.lengths)
                return [row.tolist() for row in random_rows(rng, drawn, config)]

            return map(work, pool_of(size, longest, batch))

        return None if int8 else (config.d_model, config.encoder_ffn_dim, dtype), units


def real_articles(
    data: Path, words: Tokenizer, size: int, longest: int, world: World
) -> Iterator[Sources]:
    """Yield batches of this rank's articles of the test split, in turn forever."""
    texts = [pair.source for pair in read_pairs(data, "test")]
    mine = words.encode_batch(texts, max_length=longest)[world.rank :: world.size]
    if len(mine) < size:
        raise UsageError(f"--batch-size {size}: {data} has {len(mine):,} test articles per process")
    return cycle([mine[i : i + size] for i in range(0, len(mine) - size + 1, size)])


def transformers_decoder(ours: Bart, generation: GenerationConfig) -> Decode:
    """Make a function that decodes sources with `model.generate`."""
    import transformers

    config, weights = ours.config, next(ours.parameters())
    model = twin(ours).to(device=weights.device, dtype=weights.dtype).eval()
    settings = transformers.GenerationConfig(**generation_to_hf(config, generation))

    @torch.inference_mode()
    def decode(sources: Sources) -> list[int]:
        ids = pad_rows(sources, config.pad_token_id, positions=config.max_position_embeddings)
        ids = ids.to(weights.device)
        mask = (ids != config.pad_token_id).long()
        output = model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)
        lengths: list[int] = (output[:, 1:] != config.pad_token_id).sum(1).tolist()
        return lengths

    return decode
