"""Dry runs: find the length, memory, disk space and speed of a run without writing anything.

In: the job of a real run, after all its checks. Out: the estimate, with the measured speed of a
step on this machine.
"""

import math
import shutil
import time
from typing import Any

from bart_cli.config.run import FinetuneConfig
from bart_cli.data.batch import IGNORE, Batch
from bart_cli.model.bart import Bart
from bart_cli.progress import Reporter
from bart_cli.runtime.world import World
from bart_cli.training.fit import Room
from bart_cli.training.loop import Job, StepNumbers, forward_backward, update
from bart_cli.training.resume import TrainingRun

LONG = 10.0  # maximum seconds to measure


def estimate(
    config: TrainingRun, job: Job, room: Room, tokens_per_epoch: int | None, reporter: Reporter
) -> dict[str, Any]:
    """Run a few steps without writing anything, and estimate the whole run.

    Return the numbers by name; memory in bytes on one device, without validation.
    """
    training, share = config.training, room.at_once
    run, world, model = job.run, job.world, job.model
    epoch, first = job.samples_per_epoch, job.progress.step
    assert epoch is not None
    micro, measured, seconds, update_seconds = _measured(job, reporter)
    measured_tokens = world.sum(_tokens(measured))
    read = world.sum(_tokens(micro))
    if isinstance(config, FinetuneConfig) and tokens_per_epoch:  # batches differ in length
        read = tokens_per_epoch / epoch * training.global_batch
    seconds = seconds * read / measured_tokens + update_seconds
    checkpoint, kept, disk = _disk(config, model, room, world)
    free = shutil.disk_usage(next(path for path in (run, *run.parents) if path.exists())).free
    if disk > free:
        reporter.warn(
            f"checkpoints need up to {disk / 1e9:.1f} GB of disk, but {free / 1e9:.1f} GB are free"
        )
    available = room.available
    shape, optimizer, schedule = model.config, config.optimizer, config.schedule
    return {
        "run": str(run),
        "task": config.task,
        "model": f"{shape.encoder_layers} + {shape.decoder_layers} layers of width "
        f"{shape.d_model}, vocabulary {shape.vocab_size:,}",
        "parameters": sum(p.numel() for p in model.parameters()),
        "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "optimizer": f"{optimizer.name}, peak learning rate {optimizer.learning_rate:g}",
        "schedule": f"{schedule.name} after {schedule.warmup_steps:,} steps of warm-up",
        "precision": training.precision,
        "device": world.device.type,
        "ranks": world.size,
        "global_batch": training.global_batch,
        "micro_batch": training.micro_batch_size,
        "data": str(config.data.path),
        "samples_per_epoch": epoch,
        # Articles and summaries, or samples before noise.
        "tokens_per_epoch": tokens_per_epoch,
        "steps_per_epoch": epoch / training.global_batch,
        "epochs": training.max_steps * training.global_batch / epoch,
        "max_steps": training.max_steps,
        "first_step": first,
        "memory": room.needs.parts(share),
        "memory_needed": room.needs.total(share),
        "memory_available": None if available is None else available + room.needs.weights,
        "checkpoint_bytes": checkpoint,
        "checkpoints": kept,  # there is one more while it is being written
        "disk_needed": disk,
        "disk_free": free,
        "passes": len(micro),  # per step on rank 0
        "measured_passes": len(measured),
        "step_seconds": seconds,  # of a step with the average number of tokens
        "sequences_per_second": training.global_batch / seconds,
        "tokens_per_second": read / seconds,
        "hours": (training.max_steps - first) * seconds / 3600,
    }


def _measured(job: Job, reporter: Reporter) -> tuple[list[Batch], list[Batch], float, float]:
    """Measure a step, after one or two warm-up steps of one pass each.

    Return its micro-batches; the first ones that were measured, all unless they take longer than
    LONG seconds; the seconds of their passes, and of the update.
    """
    world, training = job.world, job.training
    compiled = world.device.type == "cuda" or training.compile is True
    job.model.train()

    def step(micro: list[Batch]) -> tuple[float, float]:
        begin = time.monotonic()
        loss, _ = forward_backward(job, micro)
        float(loss)  # wait for the device
        middle = time.monotonic()
        norm = update(job, job.schedule(job.progress.step + 1))
        StepNumbers(job.progress.step, world, loss, norm).read()
        return middle - begin, time.monotonic() - middle

    with reporter.task("measure", unit="steps") as task:
        micro = next(job.batches)
        first, _ = step(micro[:1])
        task.advance(1)
        if compiled or not world.any(first > LONG / 4):
            first, _ = step(micro[:1])
            task.advance(1)
        number = world.broadcast(max(1, int(LONG / first)))
        part = micro[:number]
        seconds, rest = step(part)
        task.advance(1)
    return micro, part, seconds, rest


def _tokens(micro: list[Batch]) -> int:
    return sum(int(b.source_mask.sum()) + int((b.labels != IGNORE).sum()) for b in micro)


def _disk(config: TrainingRun, model: Bart, room: Room, world: World) -> tuple[int, int, int]:
    """Return the bytes of a checkpoint, the number to keep, and the maximum bytes of the run."""
    training = config.training
    weights = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    parts = world.size if training.sharding == "fsdp" else 1
    checkpoint = weights + room.needs.optimizer * parts
    every = training.checkpoint_every
    assert isinstance(every, int)
    written = math.ceil(training.max_steps / every)
    kept = min(max(2, training.keep_last), written) + training.keep_best
    models = 1 if training.validate_every is None else 2  # model/ and best/
    return checkpoint, kept, (kept + 1) * checkpoint + models * weights
