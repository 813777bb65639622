"""Compare a training step on this CPU with transformers, eager and compiled.

    python benchmarks/training_cpu.py [--model bart-large] [--precision fp32] [--compiled]
        [--pairs FOLDER --tokenizer FOLDER]

There are two loads: 8 x 128 random tokens on both sides and, with --pairs, real articles of various
lengths. transformers pads these to the longest of 8 shuffled articles (DataCollatorForSeq2Seq),
while our loader groups them by length. Each side runs in a separate process, and they take turns;
both use dropout 0.1, clipped gradients and fused AdamW. Also prints the share of the machine's
matrix-product rate that each reaches. For a profile, run `bart benchmark train --profile`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from measure import ratios, run, spread, start_arm

from bart_cli.benchmark import loads
from bart_cli.benchmark.loads import Step, bart_step, transformers_step
from bart_cli.benchmark.session import lengths_of
from bart_cli.config.data import SummarizationDataConfig
from bart_cli.config.model import ModelConfig
from bart_cli.config.presets import preset_config
from bart_cli.config.run import PretrainConfig
from bart_cli.config.training import OptimizerConfig, TrainingConfig
from bart_cli.data.batch import Batch, Collate
from bart_cli.data.order import Share
from bart_cli.data.pair_ids import load_encoded
from bart_cli.data.pairs import PairSource
from bart_cli.data.summarization_loader import SummarizationLoader
from bart_cli.model.bart import Bart
from bart_cli.runtime.flops import measured_flops, training_flops
from bart_cli.runtime.memory import keep_freed_memory
from bart_cli.runtime.precision import product_dtype
from bart_cli.runtime.world import World
from bart_cli.tokenizer import Tokenizer

BATCH, LENGTH, RATE = 8, 128, 1e-5
CPU = torch.device("cpu")


def make_step(arm: str, model: Bart, precision: str) -> Step:
    """Make the step of the training loop of bart, or of a plain loop around transformers."""
    run = PretrainConfig(
        model=model.config,
        training=TrainingConfig.model_validate({"precision": precision}),
        optimizer=OptimizerConfig(name="adamw", learning_rate=RATE),
    )
    world = World(0, 1, CPU)
    if arm == "bart":
        keep_freed_memory()
        return bart_step(model, run, world, RATE)
    if arm == "compiled":
        plain = loads.twin

        def compiled(ours: Bart) -> torch.nn.Module:
            theirs = plain(ours)
            theirs.compile(dynamic=True)
            return theirs

        loads.twin = compiled
    return transformers_step(model, run, world, RATE)


def full_batch(config: ModelConfig) -> Batch:
    """Make 8 x 128 random tokens on both sides."""
    torch.manual_seed(1)
    source, labels = torch.randint(4, config.vocab_size, (2, BATCH, LENGTH)).unbind()
    return Collate(pad_id=1, decoder_start_id=2)(source.numpy(), labels.numpy())


def mixed_batches(path: Path, tokenizer: Tokenizer, count: int) -> tuple[list[Batch], list[Batch]]:
    """Make `count` batches of the same pairs, by our loader and by transformers' collator."""
    data = SummarizationDataConfig(path=path, n_train=count * BATCH)
    pairs = load_encoded(PairSource(data), "train", data.n_train, data, tokenizer)
    share, collate = Share(global_batch=BATCH, micro_batch=BATCH), Collate(tokenizer.pad_id, 2)
    loader = iter(SummarizationLoader(pairs, data, share, seed=1, collate=collate))
    ours = [batch for (batch,) in islice(loader, count)]
    order = torch.randperm(len(pairs.sources), generator=torch.Generator().manual_seed(1))
    theirs = [
        collate([pairs.sources[row] for row in rows], [pairs.targets[row] for row in rows])
        for rows in (part.tolist() for part in order.split(BATCH))
    ]
    return ours, theirs


def seconds(step: Step, batches: list[Batch]) -> float:
    begin = time.perf_counter()
    for batch in batches:
        step([batch])
    return time.perf_counter() - begin


def serve(arm: str, options: argparse.Namespace, pipe: Connection) -> None:
    """One side in a separate process: receives names of loads and sends seconds."""
    config = preset_config(options.model).model
    torch.manual_seed(0)
    step = make_step(arm, Bart(config), options.precision)
    loads = {"full": [full_batch(config)]}
    seconds(step, loads["full"] * 2)
    if options.pairs:
        tokenizer = Tokenizer.from_pretrained(options.tokenizer)
        ours, theirs = mixed_batches(options.pairs, tokenizer, options.batches)
        loads["mixed"] = ours if arm == "bart" else theirs
    pipe.send({name: describe(config, batches) for name, batches in loads.items()})
    while load := pipe.recv():
        pipe.send(seconds(step, loads[load]))


def compare(
    title: str,
    load: str,
    arms: dict[str, Connection],
    flops: float,
    repeats: int,
    product: tuple[torch.dtype, tuple[int, int, int]],
) -> None:
    """Run both sides in turn; print medians, spreads and shares of the matrix-product rate."""
    times: dict[str, list[float]] = {arm: [] for arm in arms}
    rates = []
    for _ in range(repeats):
        rates.append(measured_flops(CPU, *product))
        for arm, pipe in arms.items():
            pipe.send(load)
            times[arm].append(pipe.recv())
    rate = statistics.median(rates)
    print(f"\n{title}; matrix products alone: {rate / 1e9:.0f} GFLOP/s")
    for arm, values in times.items():
        useful = f"{flops / statistics.median(values) / rate:.0%} of that rate in useful work"
        print(f"  {arm:13} {spread(values, '.3f', ' s')}, {useful}")
    for peer in [arm for arm in arms if arm != "bart"]:
        fast = spread(ratios(times[peer], times["bart"]), unit=f" times as fast as {peer}")
        print(f"  bart is {fast}", flush=True)


def describe(config: ModelConfig, batches: list[Batch]) -> tuple[float, float]:
    """Count the FLOPs over real tokens, and the share of padding in the sources."""
    useful = sum(training_flops(config, *lengths) for lengths in lengths_of(batches))
    real = sum(int(one.source_mask.sum()) for one in batches)
    return useful, 1 - real / sum(one.source.numel() for one in batches)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=Path)
    parser.add_argument("--tokenizer", help="of --pairs; 50,265 entries at most")
    parser.add_argument("--batches", type=int, default=8, help="batches of 8 real pairs")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--mixed-only", action="store_true", help="leave out the 8 x 128 tokens")
    parser.add_argument("--model", default="bart-base", help="preset of the architecture")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--compiled", action="store_true", help="transformers compiled as well")
    options = parser.parse_args()
    arms, facts = {}, {}
    for arm in ("transformers", *(["compiled"] if options.compiled else []), "bart"):
        arms[arm] = start_arm(serve, arm, options)
        facts[arm] = arms[arm].recv()
    flops = {load: facts["bart"][load][0] for load in facts["bart"]}
    shape = preset_config(options.model).model
    product = (
        product_dtype(options.precision, CPU),
        (BATCH * LENGTH, shape.d_model, shape.encoder_ffn_dim),
    )
    title = (
        f"{options.model}, {options.precision}, {BATCH} x {LENGTH} tokens, "
        f"{torch.get_num_threads()} threads"
    )
    if not options.mixed_only:
        compare(title, "full", arms, flops["full"], options.repeats, product)
    if options.pairs:
        padding = ", ".join(f"{arm} pads {facts[arm]['mixed'][1]:.0%}" for arm in arms)
        title = f"{options.batches} batches of 8 real pairs of mixed lengths; {padding}"
        rounds = max(3, options.repeats // 2)
        compare(title, "mixed", arms, flops["mixed"], rounds, product)
    for pipe in arms.values():
        pipe.send(None)


if __name__ == "__main__":
    run(main)
