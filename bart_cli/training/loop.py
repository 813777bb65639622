"""The training loop, shared by pre-training and fine-tuning.

For each optimizer step: run forward and backward over the micro-batches, sum gradients over ranks
(during backward), clip, update, log, validate, and write a checkpoint.

The loss of a step is the mean over the real target tokens of the global batch, so it does not
depend on how the batch is divided into ranks and micro-batches.

A GPU does not wait for the host: loss and norm of a step are read after the next step has been
launched, unless they are needed at once (for the log, validation or a checkpoint). The device
itself skips an update with a non-finite gradient.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from bart_cli.config.generation import GenerationConfig
from bart_cli.config.training import OptimizerConfig, TrainingConfig
from bart_cli.data.batch import IGNORE, Batch
from bart_cli.data.random_keys import Purpose, derive
from bart_cli.model.bart import Bart
from bart_cli.model.losses import linear_cross_entropy
from bart_cli.progress import Reporter
from bart_cli.runtime.precision import autocast, fast_products
from bart_cli.runtime.signals import StopRequest
from bart_cli.runtime.world import World
from bart_cli.tokenizer import Tokenizer
from bart_cli.training.checkpoint import (
    Progress,
    Snapshot,
    checkpoint_writer,
    take_snapshot,
    whole_weights,
)
from bart_cli.training.metrics import Meter, MetricsLog, Row, headline
from bart_cli.training.parallel import GradientSum, full_tensor, release
from bart_cli.training.trackers import Trackers
from bart_cli.training.validation import NotFinite, ValidationStopped

Validate = Callable[[StopRequest], Row]


@dataclass
class Job:
    """Inputs of the loop.

    `validate` returns metrics, among them `score`, which selects the best model (higher is better),
    and optionally `samples`, decoded texts; it raises ValidationStopped.
    """

    run: Path
    world: World
    model: Bart
    tokenizer: Tokenizer
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    batches: Iterator[list[Batch]]  # for each step, this rank's micro-batches
    training: TrainingConfig
    optimizer_config: OptimizerConfig
    schedule: Callable[[int], float]  # learning rate of a step (the first is 1)
    progress: Progress
    generation: GenerationConfig | None = None  # decoding settings to save in checkpoints
    samples_per_epoch: int | None = None
    validate: Validate | None = None
    # Called on rank 0 with the weights after the best validation so far.
    save_best: Callable[[dict[str, Tensor]], None] | None = None
    trackers: Trackers | None = None  # on rank 0

    def __post_init__(self) -> None:
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.gradients = GradientSum(self.world, self.parameters, self.training)


def train(job: Job, stop: StopRequest, reporter: Reporter) -> str:
    """Train until `max_steps`, a stop request, or `patience` validations without improvement.

    Return the outcome, "done" or the reason for stopping. Raise NotFinite if the loss was not
    finite for too many steps in a row, or at the last step.
    """
    training, progress, world = job.training, job.progress, job.world
    log = None
    if world.is_main:
        board = "tensorboard" in training.loggers
        log = MetricsLog(job.run, progress.step, board=board, trackers=job.trackers)
    meter = Meter(job)
    unread: deque[StepNumbers] = deque()
    outcome = "done"
    with (
        checkpoint_writer(job.run, job.tokenizer, job.generation, training) as write,
        reporter.task("train", total=training.max_steps, unit="steps") as task,
    ):
        task.advance(progress.step)
        job.model.train()
        if progress.owes_validation:
            if validate(job, stop, log, reporter):
                checkpoint(job, write)
            outcome = outcome_so_far(job, stop, asked=world.any(stop.reason is not None))
        while outcome == "done" and progress.step < training.max_steps:
            micro = next(job.batches)
            loss, tokens = forward_backward(job, micro)
            rate = job.schedule(progress.step + 1)
            norm = update(job, rate)
            progress.step += 1
            progress.samples += training.global_batch
            progress.score = None
            meter.add(micro, tokens)
            stopping = stop.reason is not None
            unread.append(StepNumbers(progress.step, world, loss, norm, stop=stopping))
            logs = progress.step % training.log_every == 0
            validates = due(progress.step, training.validate_every, training)
            saves = due(progress.step, training.checkpoint_every, training)
            at_once = logs or validates or saves or (world.size == 1 and stopping)
            asked, last_norm = read_numbers(job, unread, keep=0 if at_once else 1)

            if logs and log is not None:
                row = meter.row(rate, last_norm)
                log.write(row)
                task.show(headline(row))
            among_best = validates and validate(job, stop, log, reporter)
            task.advance(1)
            if world.size == 1 or at_once:
                asked = asked or world.any(stop.reason is not None)
            outcome = outcome_so_far(job, stop, asked=asked)
            if among_best or saves or outcome != "done":
                read_numbers(job, unread, keep=0)
                if not progress.lost:
                    checkpoint(job, write)
    if progress.lost and progress.step == training.max_steps:
        raise NotFinite(lost_steps(progress))
    if log is not None:
        log.close()
    return outcome


def outcome_so_far(job: Job, stop: StopRequest, *, asked: bool) -> str:
    """Return the reason to stop before `max_steps`, or "done"; `asked`: was any rank asked to?"""
    progress, patience = job.progress, job.training.patience
    if patience is not None and progress.stale >= patience and not progress.owes_validation:
        return f"stopped: no improvement for {progress.stale} validations"
    if asked:
        return f"stopped by {stop.reason or 'another rank'}"
    return "done"


def forward_backward(job: Job, micro: list[Batch]) -> tuple[Tensor, int]:
    """Compute the gradients of the mean loss of the global batch.

    Return this rank's contribution to the loss, and its number of target tokens.
    """
    training, world = job.training, job.world
    # Dropout is keyed by step and rank, so that checkpoints need no generator state.
    key = derive(training.seed, Purpose.DROPOUT, job.progress.step, world.rank)
    torch.manual_seed(int(key) >> 1)
    tokens = sum(int((batch.labels != IGNORE).sum()) for batch in micro)
    total: Tensor | int = tokens
    if world.size > 1:  # stays on the device: reading it would wait for the previous step
        total = world.summed(torch.full((), tokens, dtype=torch.float64, device=world.device))
        total = total.float()
    job.optimizer.zero_grad()  # sets to None; apex's zero_grad takes no argument
    loss = torch.zeros((), device=world.device)
    with fast_products(training.precision, world.device):
        for number, batch in enumerate(micro, 1):
            part = batch_loss(job.model, batch.to(world.device), training) / total
            with job.gradients.during_backward() if number == len(micro) else nullcontext():
                job.scaler.scale(part).backward()
            loss += part.detach()
    return loss, tokens


def batch_loss(model: Bart, batch: Batch, training: TrainingConfig) -> Tensor:
    """Compute the loss summed over the target tokens of a micro-batch, under autocast."""
    with autocast(training.precision, batch.source.device):
        hidden = model(batch.source, batch.source_mask, batch.decoder_input)
        return linear_cross_entropy(
            hidden,
            model.model.shared.weight,
            model.final_logits_bias,
            batch.labels,
            smoothing=training.label_smoothing,
        )


def update(job: Job, rate: float) -> Tensor:
    """Clip the gradient, return its norm before that, and update the weights if it is finite."""
    job.scaler.unscale_(job.optimizer)
    total_norm = get_total_norm([p.grad for p in job.parameters if p.grad is not None])
    norm = full_tensor(total_norm)
    if job.optimizer_config.clip_norm:
        clip_grads_with_norm_(job.parameters, job.optimizer_config.clip_norm, total_norm)
    for group in job.optimizer.param_groups:
        group["lr"] = group["lr"].fill_(rate) if isinstance(group["lr"], Tensor) else rate
    if getattr(job.optimizer, "_step_supports_amp_scaling", False):
        job.optimizer.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]
        job.optimizer.step()
    elif math.isfinite(norm.item()):
        job.optimizer.step()
    job.scaler.update()
    return norm


class StepNumbers:
    """Loss and norm of a step, and whether a rank was asked to stop, copied to the host async."""

    def __init__(
        self, step: int, world: World, loss: Tensor, norm: Tensor, *, stop: bool = False
    ) -> None:
        self.step = step
        asked = torch.full_like(loss, float(stop))
        summed = world.summed(torch.stack([loss, asked]).double())
        numbers = torch.cat([summed, norm.double()[None]])
        self._numbers = numbers.to("cpu", non_blocking=True)
        self._copied = torch.cuda.Event() if numbers.is_cuda else None
        if self._copied is not None:
            self._copied.record()

    def read(self) -> tuple[float, float, bool]:
        """Wait for this step only; return global loss, norm, and whether to stop."""
        if self._copied is not None:
            self._copied.synchronize()
        loss, asked, norm = self._numbers.tolist()
        return loss, norm, asked > 0


def read_numbers(job: Job, unread: deque[StepNumbers], *, keep: int) -> tuple[bool, float]:
    """Read all unread steps but the last `keep`, and add them to the mean loss of the log.

    Return whether a rank was asked to stop in one of them, and the norm of the last one.
    """
    progress, stop, norm = job.progress, False, math.nan
    while len(unread) > keep:
        numbers = unread.popleft()
        loss, norm, asked = numbers.read()
        stop = stop or asked
        finite = math.isfinite(loss) and math.isfinite(norm)
        # Gradients that overflow are normal with fp16: the scaler reduces its factor.
        progress.lost = not (finite or (job.scaler.is_enabled() and math.isfinite(loss)))
        if finite:
            progress.loss_sum += loss
            progress.loss_steps += 1
            progress.bad_in_row = 0
            continue
        progress.skipped += 1
        progress.bad_in_row += 1
        if progress.bad_in_row >= job.training.max_bad_steps:
            progress.step = numbers.step
            raise NotFinite(lost_steps(progress))
    return stop, norm


def lost_steps(progress: Progress) -> str:
    """Describe the steps that were not finite, for an error message."""
    count, last = progress.bad_in_row, progress.step
    where = f"at step {last}" if count == 1 else f"for {count} steps in a row, up to step {last}"
    return f"the loss or its gradient was not finite {where}"


def validate(job: Job, stop: StopRequest, log: MetricsLog | None, reporter: Reporter) -> bool:
    """Validate, save the best model so far, and return whether this is one of the `keep_best`.

    A stop request interrupts the validation; the resumed run repeats it.
    """
    if job.validate is None:
        return False
    progress, best = job.progress, job.progress.best_scores
    job.model.eval()
    try:
        with torch.no_grad():
            scores = job.validate(stop)
        progress.owes_validation = False
    except ValidationStopped:
        progress.owes_validation = True
        return False
    finally:
        release(job.model)
        job.model.train()
    score = progress.score = scores.pop("score")
    samples = scores.pop("samples", None)
    best[:] = sorted([*best, score])[-job.training.keep_best :] if job.training.keep_best else []
    if progress.best_score is None or score > progress.best_score:
        progress.best_score, progress.best_step, progress.stale = score, progress.step, 0
        weights = whole_weights(job.model)
        if job.save_best is not None and job.world.is_main:
            job.save_best(weights)
    else:
        progress.stale += 1
    if log is not None:
        log.write({"step": progress.step} | scores)
        if samples:
            log.keep_samples(progress.step, samples)
        text = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in scores.items())
        reporter.info(f"step {progress.step}: {text}")
    return score in best


def checkpoint(job: Job, write: Callable[[Snapshot], None]) -> None:
    """Copy the state; rank 0 writes it in the background while training continues."""
    if job.world.is_main or job.training.sharding != "none":
        snapshot = take_snapshot(job.model, job.optimizer, job.scaler, job.progress)
        if job.world.is_main:
            write(snapshot)


def due(step: int, every: int | str | None, training: TrainingConfig) -> bool:
    """Return whether an action that runs every `every` steps, and at the end, is due."""
    return isinstance(every, int) and (step % every == 0 or step == training.max_steps)
