"""Compare the memory estimates of `bart pretrain` and `bart finetune` with steps on this CPU.

    python benchmarks/memory.py [--cases 1 5] [--micro-batch N]

Each row is a separate process, which builds a model with random weights, computes the footprint,
runs two steps of two micro-batches and a snapshot for a checkpoint, and reports the growth of its
peak resident memory. --cases picks rows by number (the last one, BART-large, only runs by number).
--micro-batch replaces the number of sequences in each.
"""

from __future__ import annotations

import argparse
import resource
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from measure import run, start_arm

from bart_cli.config.presets import preset_config
from bart_cli.config.run import PretrainConfig
from bart_cli.config.training import OptimizerConfig, TrainingConfig
from bart_cli.model.bart import Bart
from bart_cli.runtime.memory import keep_freed_memory, resident_memory
from bart_cli.runtime.world import World
from bart_cli.training.checkpoint import Progress, take_snapshot
from bart_cli.training.footprint import GIB, footprint, longest_batch
from bart_cli.training.loop import Job, forward_backward, update
from bart_cli.training.setup import equip, place

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Case:
    """Settings of one row."""

    model: str
    micro_batch: int
    lengths: tuple[int, int]
    optimizer: str = "adamw"
    precision: str = "fp32"
    attention_dropout: float = 0.0
    checkpointing: bool = False


CASES = (
    Case("tiny-cpu-model", 64, (128, 128)),
    Case("tiny-cpu-model", 64, (128, 128), "nvlamb", attention_dropout=0.1),
    Case("tiny-cpu-model", 16, (512, 512), "adamw", "fp32", 0.1, True),
    Case("tiny-cpu-model", 32, (512, 128), "adafactor", "bf16"),
    Case("bart-base", 4, (128, 128)),
    Case("bart-base", 12, (128, 128)),  # more logits than the loss has in memory at a time
    Case("bart-base", 4, (128, 128), "nvlamb", "bf16"),
    Case("bart-base", 2, (512, 512), "nvlamb"),
    Case("bart-base", 4, (512, 128), "adafactor", "fp32", 0.1),
    Case("bart-base", 4, (512, 128), "adamw", "fp32", 0.1, True),
    Case("bart-large-preln", 2, (1024, 142), "adamw", "bf16", 0.1),
)


def measure(case: Case, pipe: Connection) -> None:
    """Send the estimated bytes besides the weights, and the growth of the process in bytes."""
    keep_freed_memory()
    preset = preset_config(case.model)
    assert isinstance(preset, PretrainConfig)
    shape = preset.model.model_copy(update={"attention_dropout": case.attention_dropout})
    training = TrainingConfig.model_validate(
        {"precision": case.precision, "activation_checkpointing": case.checkpointing}
    )
    optimizer_config = OptimizerConfig.model_validate({"name": case.optimizer})
    world = World(0, 1, CPU)
    torch.manual_seed(0)
    model = place(Bart(shape), training, world)
    expected = footprint(model, training, optimizer_config, case.lengths, world)
    optimizer, scaler = equip(model, training, optimizer_config, world)
    before = resident_memory()  # the first optimizer imports torch._dynamo: 0.14 GiB
    job = Job(
        run=Path(),
        world=world,
        model=model.train(),
        tokenizer=None,  # type: ignore[arg-type] - only checkpoints need it
        optimizer=optimizer,
        scaler=scaler,
        batches=iter(()),
        training=training,
        optimizer_config=optimizer_config,
        schedule=lambda step: 1e-5,
        progress=Progress(),
    )
    micro = [longest_batch(model, case.micro_batch, case.lengths, CPU)] * 2
    snapshot = None
    for _ in range(2):
        forward_backward(job, micro)
        update(job, 1e-5)
        snapshot = snapshot or take_snapshot(model, optimizer, scaler, job.progress)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    pipe.send((expected.total(case.micro_batch) - expected.weights, peak - before))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    numbers = range(1, len(CASES) + 1)
    parser.add_argument(
        "--cases", type=int, nargs="+", choices=numbers, default=numbers[:-1], metavar="N"
    )
    parser.add_argument("--micro-batch", type=int)
    options = parser.parse_args()
    print("| case | expected, GiB | measured, GiB | expected / measured |")
    print("|---|---:|---:|---:|")
    for number in options.cases:
        case = CASES[number - 1]
        case = replace(case, micro_batch=options.micro_batch or case.micro_batch)
        expected, measured = start_arm(measure, case).recv()
        name = f"{case.model}, {case.optimizer}, {case.precision}"
        name += f", {case.micro_batch} x {case.lengths}, dropout {case.attention_dropout}"
        name += ", recomputed" * case.checkpointing
        sizes = f"{expected / GIB:.2f} | {measured / GIB:.2f} | {expected / measured:.2f}"
        print(f"| {name} | {sizes} |", flush=True)


if __name__ == "__main__":
    run(main)
