"""Validation: the loss on held-out data during training."""

import math
from collections.abc import Iterable, Iterator

import torch

from bart_cli.config.training import Precision, TrainingConfig
from bart_cli.data.batch import IGNORE, Batch
from bart_cli.data.order import Share
from bart_cli.errors import BartError
from bart_cli.model.bart import Bart
from bart_cli.model.losses import linear_cross_entropy
from bart_cli.runtime.precision import autocast, fast_products
from bart_cli.runtime.signals import StopRequest
from bart_cli.runtime.world import World


class NotFinite(BartError):
    """The training or validation loss is not finite."""


class ValidationStopped(Exception):
    """A stop was requested during validation. Raised on all ranks together."""


def validation_share(training: TrainingConfig, world: World) -> Share:
    """Return this rank's share of the validation batches: one micro-batch of each global batch."""
    return Share(
        global_batch=world.size * training.micro_batch_size,
        micro_batch=training.micro_batch_size,
        rank=world.rank,
        world_size=world.size,
    )


def require_no_stop(stop: StopRequest, world: World) -> None:
    """Raise ValidationStopped on every rank if a stop was requested on any. A collective call."""
    if world.any(stop.reason is not None):
        raise ValidationStopped


def mean_loss(
    model: Bart, batches: Iterable[Batch], world: World, precision: Precision, stop: StopRequest
) -> float:
    """Compute the mean negative log-likelihood per target token, without label smoothing.

    The mean is over the batches of all ranks. A stop request raises ValidationStopped.
    """
    total = torch.zeros((), device=world.device)
    tokens = 0
    for batch in _in_step(batches, world, model.config.eos_token_id):
        here = batch.to(world.device)
        with autocast(precision, world.device), fast_products(precision, world.device):
            hidden = model(here.source, here.source_mask, here.decoder_input)
            total += linear_cross_entropy(
                hidden, model.model.shared.weight, model.final_logits_bias, here.labels
            )
        tokens += int((batch.labels != IGNORE).sum())
        require_no_stop(stop, world)
    loss = world.sum(total.item()) / max(1.0, world.sum(tokens))
    if not math.isfinite(loss):
        raise NotFinite(f"the validation loss is not finite ({loss})")
    return loss


def _in_step(batches: Iterable[Batch], world: World, token: int) -> Iterator[Batch]:
    """Yield the batches, then one `token` without label until all ranks have finished theirs.

    With a sharded model, every forward is a collective call, so all ranks need equally many.
    """
    one = torch.full((1, 1), token)
    filler = Batch(one, torch.ones_like(one, dtype=torch.bool), one, torch.full_like(one, IGNORE))
    own = iter(batches)
    while True:
        batch = next(own, None)
        if not world.any(batch is not None):
            return
        yield filler if batch is None else batch
