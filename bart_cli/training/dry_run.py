"""Dry runs: find the length, memory, disk space and speed of a run without writing anything.

In: the arguments of `run_training`, after all checks of a real run. Out: an `Estimate`, with the
measured speed of a step on this machine.
"""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import dataclass

from bart_cli.config.run import FinetuneConfig
from bart_cli.data.batch import IGNORE, Batch
from bart_cli.model.bart import Bart
from bart_cli.progress import Reporter
from bart_cli.runtime.world import World
from bart_cli.training.fit import Room
from bart_cli.training.loop import (
    Job,
    StepNumbers,
    forward_backward,
    gradient_sum,
    update,
)
from bart_cli.training.resume import TrainingRun
from bart_cli.training.run import RunResult, explained

LONG = 10.0  # maximum seconds to measure


@dataclass(frozen=True)
class Estimate:
    """Expected length and resources of a run.

    Attributes:
        tokens_per_epoch: tokens of articles and summaries, or of samples before noise; None:
            unknown.
        first_step: step that the run resumes from; 0 for a new run.
        memory: bytes by part, on one device.
        memory_needed: peak of a step in bytes, on one device.
        memory_available: bytes available to a process; None: unknown.
        checkpoints: number of checkpoints to keep; there is one more while it is being written.
        disk_needed: maximum bytes of checkpoints and models.
        passes: forward passes per step on rank 0.
        measured_passes: how many of these were measured.
        step_seconds: duration of a step with the average number of tokens.
        hours: duration of the remaining steps, without validation.
    """

    run: str
    task: str
    model: str
    parameters: int
    trained_parameters: int
    optimizer: str
    schedule: str
    precision: str
    device: str
    ranks: int
    global_batch: int
    micro_batch: int
    data: str
    samples_per_epoch: int
    tokens_per_epoch: int | None
    steps_per_epoch: float
    epochs: float
    max_steps: int
    first_step: int
    memory: dict[str, int]
    memory_needed: int
    memory_available: int | None
    checkpoint_bytes: int
    checkpoints: int
    disk_needed: int
    disk_free: int
    passes: int
    measured_passes: int
    step_seconds: float
    sequences_per_second: float
    tokens_per_second: float
    hours: float


@dataclass(frozen=True, kw_only=True)
class DryRun(RunResult):
    """Result of a dry run."""

    estimate: Estimate


def rehearse(config: TrainingRun, job: Job, room: Room, reporter: Reporter) -> DryRun:
    """Run a few steps without writing anything, and estimate the whole run.

    Args:
        config, job, room: see `run_training`.

    Raises:
        BartError: memory ran out, or a data worker died.
    """
    training, share = config.training, room.at_once
    run, world, model = job.run, job.world, job.model
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    progress, epoch = job.progress, job.samples_per_epoch
    assert epoch is not None
    assert job.tokens_per_epoch is not None
    tokens = job.tokens_per_epoch()
    first = progress.step
    try:
        with explained(training, room, world):
            speed = _measured(job, reporter)
    finally:
        job.end()
    read = speed.whole
    if isinstance(config, FinetuneConfig) and tokens:  # batches differ in length
        read = tokens / epoch * training.global_batch
    seconds = speed.step(read)
    checkpoint, kept, disk = _disk(config, model, room, world)
    free = shutil.disk_usage(next(path for path in (run, *run.parents) if path.exists())).free
    if disk > free:
        reporter.warn(
            f"checkpoints need up to {disk / 1e9:.1f} GB of disk, but {free / 1e9:.1f} GB are free"
        )
    available = room.available
    shape, schedule = model.config, config.schedule
    estimate = Estimate(
        run=str(run),
        task=config.task,
        model=f"{shape.encoder_layers} + {shape.decoder_layers} layers of width {shape.d_model}, "
        f"vocabulary {shape.vocab_size:,}",
        parameters=sum(p.numel() for p in model.parameters()),
        trained_parameters=trained,
        optimizer=f"{config.optimizer.name}, peak learning rate {config.optimizer.learning_rate:g}",
        schedule=f"{schedule.name} after {schedule.warmup_steps:,} steps of warm-up",
        precision=training.precision,
        device=world.device.type,
        ranks=world.size,
        global_batch=training.global_batch,
        micro_batch=training.micro_batch_size,
        data=str(config.data.path),
        samples_per_epoch=epoch,
        tokens_per_epoch=tokens,
        steps_per_epoch=epoch / training.global_batch,
        epochs=training.max_steps * training.global_batch / epoch,
        max_steps=training.max_steps,
        first_step=first,
        memory=room.needs.parts(share),
        memory_needed=room.needs.total(share),
        memory_available=None if available is None else available + room.needs.weights,
        checkpoint_bytes=checkpoint,
        checkpoints=kept,
        disk_needed=disk,
        disk_free=free,
        passes=speed.of,
        measured_passes=speed.passes,
        step_seconds=seconds,
        sequences_per_second=training.global_batch / seconds,
        tokens_per_second=read / seconds,
        hours=(training.max_steps - first) * seconds / 3600,
    )
    return DryRun(
        run=run,
        outcome="dry run",
        step=first,
        first_loss=None,
        last_loss=None,
        best_step=None,
        model=None,
        is_main=world.is_main,
        estimate=estimate,
    )


@dataclass(frozen=True)
class _Speed:
    """Measured time of a step.

    Attributes:
        passes: number of measured forward passes.
        of: number of forward passes per step.
        seconds: forward and backward of the measured passes.
        update: seconds of the optimizer update.
        tokens: tokens in the measured passes of all ranks, without padding.
        whole: tokens in the whole step.
    """

    passes: int
    of: int
    seconds: float
    update: float
    tokens: float
    whole: float

    def step(self, tokens: float) -> float:
        """Return the seconds of a step with this number of tokens."""
        return self.seconds * tokens / self.tokens + self.update


def _measured(job: Job, reporter: Reporter) -> _Speed:
    """Measure a step, after one or two warm-up steps of one pass each.

    If a step takes longer than LONG seconds, only its first passes are measured.
    """
    world, training = job.world, job.training
    parameters = [p for p in job.model.parameters() if p.requires_grad]
    gradients = gradient_sum(world, parameters, training)
    compiled = world.device.type == "cuda" or training.compile is True
    job.model.train()

    def step(micro: list[Batch]) -> tuple[float, float]:
        begin = time.monotonic()
        loss, _ = forward_backward(job, micro, gradients)
        float(loss)  # wait for the device
        middle = time.monotonic()
        norm = update(job, parameters, job.schedule(job.progress.step + 1))
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
    return _Speed(
        len(part), len(micro), seconds, rest, world.sum(_tokens(part)), world.sum(_tokens(micro))
    )


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
