"""Compare a training step on this CPU with transformers, eager and compiled.

    python benchmarks/training_cpu.py [--model bart-large] [--precision fp32] [--compiled]
        [--pairs FOLDER --tokenizer FOLDER] [--profile]

There are two loads: 8 x 128 random tokens on both sides and, with --pairs, real articles of various
lengths. transformers pads these to the longest of 8 shuffled articles (DataCollatorForSeq2Seq),
while our loader groups them by length. Each side runs in a separate process, and they take turns;
both use dropout 0.1, clipped gradients and fused AdamW. Also prints the share of the machine's
matrix-product rate that each reaches and, with --profile, a profile of our step.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from torch import Tensor
from transformers import BartConfig, BartForConditionalGeneration

from bart_cli.config.data import SummarizationDataConfig
from bart_cli.config.model import ModelConfig
from bart_cli.config.presets import preset_config
from bart_cli.config.training import OptimizerConfig, Precision, TrainingConfig
from bart_cli.data.batch import IGNORE, Batch, Collate, shift_right
from bart_cli.data.order import Share
from bart_cli.data.pair_ids import load_encoded
from bart_cli.data.pairs import PairSource
from bart_cli.data.summarization_loader import SummarizationLoader
from bart_cli.model.bart import Bart
from bart_cli.runtime.flops import training_flops
from bart_cli.runtime.memory import keep_freed_memory
from bart_cli.runtime.precision import AUTOCAST, autocast, make_scaler
from bart_cli.runtime.world import World
from bart_cli.tokenizer import Tokenizer
from bart_cli.training.all_reduce import GradientSum
from bart_cli.training.checkpoint import Progress
from bart_cli.training.loop import Job, forward_backward, update
from bart_cli.training.optimizers import build_optimizer

BATCH, LENGTH, RATE = 8, 128, 1e-5
CPU = torch.device("cpu")


def our_step(config: ModelConfig, precision: Precision) -> tuple[Bart, Callable[[Batch], None]]:
    """Make the step of bart's training loop."""
    torch.manual_seed(0)
    model = Bart(config).train()
    optimizer_config = OptimizerConfig(name="adamw", learning_rate=RATE)
    job = Job(
        run=Path(),
        world=World(0, 1, CPU),
        model=model,
        tokenizer=None,  # type: ignore[arg-type] - only checkpoints need it
        optimizer=build_optimizer(model, optimizer_config),
        scaler=make_scaler(precision, CPU),
        batches=iter(()),
        training=TrainingConfig(precision=precision),
        optimizer_config=optimizer_config,
        schedule=lambda step: RATE,
        progress=Progress(),
    )
    parameters = list(model.parameters())
    alone = GradientSum(job.world, parameters, torch.float32)

    def step(batch: Batch) -> None:
        forward_backward(job, [batch], alone)
        update(job, parameters, RATE)

    return model, step


def their_step(
    config: ModelConfig, weights: dict[str, Tensor], precision: Precision, *, compiled: bool
) -> Callable[[Batch], None]:
    """Make the step of a plain loop around the model of transformers."""
    model = BartForConditionalGeneration(
        BartConfig(
            vocab_size=config.vocab_size,
            max_position_embeddings=config.max_position_embeddings,
            d_model=config.d_model,
            encoder_layers=config.encoder_layers,
            decoder_layers=config.decoder_layers,
            encoder_attention_heads=config.encoder_attention_heads,
            decoder_attention_heads=config.decoder_attention_heads,
            encoder_ffn_dim=config.encoder_ffn_dim,
            decoder_ffn_dim=config.decoder_ffn_dim,
            dropout=config.dropout,
            attention_dropout=0.0,
            use_cache=False,
        )
    ).train()
    model.load_state_dict(weights, strict=False)
    forward = torch.compile(model, dynamic=True) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.1, fused=True)

    def step(batch: Batch) -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(precision, CPU):
            loss = forward(
                input_ids=batch.source,
                attention_mask=batch.source_mask.long(),
                decoder_input_ids=batch.decoder_input,
                labels=batch.labels,
            ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()

    return step


def full_batch(config: ModelConfig) -> Batch:
    """Make 8 x 128 random tokens on both sides."""
    torch.manual_seed(1)
    source, labels = torch.randint(4, config.vocab_size, (2, BATCH, LENGTH)).unbind()
    return Batch(
        source=source,
        source_mask=torch.ones_like(source, dtype=torch.bool),
        decoder_input=shift_right(labels, start=2, pad_id=1),
        labels=labels,
    )


def mixed_batches(path: Path, tokenizer: Tokenizer, count: int) -> tuple[list[Batch], list[Batch]]:
    """Make `count` batches of the same pairs, by our loader and by transformers' collator."""
    data = SummarizationDataConfig(path=path, n_train=count * BATCH)
    pairs = load_encoded(PairSource(data), "train", data.n_train, data, tokenizer)
    share = Share(global_batch=BATCH, micro_batch=BATCH, rank=0, world_size=1)
    loader: Iterator[list[Batch]] = iter(
        SummarizationLoader(pairs, data, share, seed=1, collate=Collate(tokenizer.pad_id, 2))
    )
    ours = [batch for (batch,) in islice(loader, count)]
    order = torch.randperm(len(pairs.sources), generator=torch.Generator().manual_seed(1)).tolist()
    theirs = []
    for begin in range(0, len(order), BATCH):
        rows = order[begin : begin + BATCH]
        theirs.append(
            Collate(1, 2)(
                [pairs.sources[row] for row in rows], [pairs.targets[row] for row in rows]
            )
        )
    return ours, theirs


def matmul_rate(precision: Precision, tokens: int = 1024, d_model: int = 768) -> float:
    """Measure the FLOP/s of matrix products of the feed-forward network, the practical peak."""
    dtype = AUTOCAST.get(precision, torch.float32)
    a = torch.randn(tokens, d_model, dtype=dtype)
    b = torch.randn(d_model, 4 * d_model, dtype=dtype)
    times = []
    for _ in range(30):
        begin = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - begin)
    return 2 * tokens * d_model * 4 * d_model / statistics.median(times)


def seconds(step: Callable[[Batch], None], batches: list[Batch]) -> float:
    begin = time.perf_counter()
    for batch in batches:
        step(batch)
    return time.perf_counter() - begin


def serve(arm: str, options: argparse.Namespace, pipe: Connection) -> None:
    """One side in a separate process: receives names of loads and sends seconds."""
    config, precision = preset_config(options.model).model, options.precision
    if arm == "bart":
        keep_freed_memory()
        _, step = our_step(config, precision)
    else:
        weights = Bart(config).state_dict()
        step = their_step(config, weights, precision, compiled=arm == "compiled")
    loads = {"full": [full_batch(config)]}
    seconds(step, loads["full"] * 2)
    if options.pairs:
        tokenizer = Tokenizer.from_pretrained(options.tokenizer)
        ours, theirs = mixed_batches(options.pairs, tokenizer, options.batches)
        loads["mixed"] = ours if arm == "bart" else theirs
    pipe.send({name: describe(config, batches) for name, batches in loads.items()})
    while load := pipe.recv():
        if load == "profile":
            with torch.profiler.profile() as profiler:
                seconds(step, loads["full"] * 2)
            pipe.send(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=15))
        else:
            pipe.send(seconds(step, loads[load]))


def compare(
    title: str,
    load: str,
    arms: dict[str, Connection],
    flops: float,
    repeats: int,
    precision: Precision,
) -> None:
    """Run both sides in turn; print medians, spreads and shares of the matrix-product rate."""
    times: dict[str, list[float]] = {arm: [] for arm in arms}
    rates = []
    for _ in range(repeats):
        rates.append(matmul_rate(precision))
        for arm, pipe in arms.items():
            pipe.send(load)
            times[arm].append(pipe.recv())
    rate = statistics.median(rates)
    print(f"\n{title}; matrix products alone: {rate / 1e9:.0f} GFLOP/s")
    for arm, values in times.items():
        middle = statistics.median(values)
        print(
            f"  {arm:13} {middle:7.3f} s ({min(values):.3f} - {max(values):.3f}), "
            f"{flops / middle / rate:.0%} of that rate in useful work"
        )
    for peer in [arm for arm in arms if arm != "bart"]:
        ratios = [a / b for a, b in zip(times[peer], times["bart"], strict=True)]
        print(f"  bart is {statistics.median(ratios):.2f} times as fast as {peer}", end=" ")
        print(f"({min(ratios):.2f} - {max(ratios):.2f})", flush=True)


def describe(config: ModelConfig, batches: list[Batch]) -> tuple[float, float]:
    """Count the FLOPs over real tokens, and the share of padding in the sources."""
    real = sum(int(one.source_mask.sum()) for one in batches)
    return useful_flops(config, batches), 1 - real / sum(one.source.numel() for one in batches)


def useful_flops(config: ModelConfig, batches: list[Batch]) -> float:
    """Count the FLOPs of forward and backward over real tokens only."""
    return sum(
        training_flops(config, batch.source_mask.sum(1), (batch.labels != IGNORE).sum(1))
        for batch in batches
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=Path)
    parser.add_argument("--tokenizer", help="of --pairs; 50,265 entries at most")
    parser.add_argument("--batches", type=int, default=8, help="batches of 8 real pairs")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--mixed-only", action="store_true", help="leave out the 8 x 128 tokens")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--model", default="bart-base", help="preset of the architecture")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--compiled", action="store_true", help="transformers compiled as well")
    options = parser.parse_args()
    arms, facts = {}, {}
    spawn = multiprocessing.get_context("spawn")
    for arm in ("transformers", *(["compiled"] if options.compiled else []), "bart"):
        arms[arm], theirs = spawn.Pipe()
        spawn.Process(target=serve, args=(arm, options, theirs), daemon=True).start()
        facts[arm] = arms[arm].recv()
    flops = {load: facts["bart"][load][0] for load in facts["bart"]}
    title = (
        f"{options.model}, {options.precision}, {BATCH} x {LENGTH} tokens, "
        f"{torch.get_num_threads()} threads"
    )
    if not options.mixed_only:
        compare(title, "full", arms, flops["full"], options.repeats, options.precision)
    if options.pairs:
        padding = ", ".join(f"{arm} pads {facts[arm]['mixed'][1]:.0%}" for arm in arms)
        title = f"{options.batches} batches of 8 real pairs of mixed lengths; {padding}"
        rounds = max(3, options.repeats // 2)
        compare(title, "mixed", arms, flops["mixed"], rounds, options.precision)
    if options.profile:
        arms["bart"].send("profile")
        print(arms["bart"].recv())
    for pipe in arms.values():
        pipe.send(None)


if __name__ == "__main__":
    main()
