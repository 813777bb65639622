"""Scores of a model on held-out data while it trains."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch

from bart_cli.config.training import Precision, TrainingConfig
from bart_cli.data.batch import IGNORE, Batch
from bart_cli.data.order import Share
from bart_cli.errors import BartError
from bart_cli.model.bart import Bart
from bart_cli.model.losses import linear_cross_entropy
from bart_cli.runtime.precision import autocast
from bart_cli.runtime.signals import StopRequest
from bart_cli.runtime.world import World


class NotFinite(BartError):
    """The loss of the model in training is not finite."""


class ValidationStopped(Exception):
    """A stop was requested during validation. All ranks raise it together."""


def validation_share(training: TrainingConfig, world: World) -> Share:
    """This rank's part of the validation batches, one micro-batch for each rank at a time."""
    return Share(
        global_batch=world.size * training.micro_batch_size,
        micro_batch=training.micro_batch_size,
        rank=world.rank,
        world_size=world.size,
    )


def require_no_stop(stop: StopRequest, world: World) -> None:
    """Raise ValidationStopped on every rank when a stop was requested on any."""
    if world.any(stop.reason is not None):
        raise ValidationStopped


def mean_loss(
    model: Bart,
    batches: Iterable[Batch],
    world: World,
    precision: Precision,
    stop: StopRequest,
) -> float:
    """Negative log-likelihood per target token over all batches of all ranks, not smoothed.

    Raises:
        NotFinite: it is not finite.
        ValidationStopped: a stop was requested.
    """
    total = torch.zeros((), device=world.device)
    tokens = 0
    for batch in _in_step(batches, world, _nothing(model)):
        here = batch.to(world.device)
        with autocast(precision, world.device):
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


def _in_step(batches: Iterable[Batch], world: World, filler: Batch) -> Iterator[Batch]:
    """The batches, and fillers until all ranks are through with theirs.

    Where weights are divided among ranks, all of them must meet in every forward.
    """
    own = iter(batches)
    while True:
        batch = next(own, None)
        if not world.any(batch is not None):
            return
        yield filler if batch is None else batch


def _nothing(model: Bart) -> Batch:
    """A batch without a token that has a loss."""
    token = torch.full((1, 1), model.config.eos_token_id)
    return Batch(
        source=token,
        source_mask=torch.ones_like(token, dtype=torch.bool),
        decoder_input=token,
        labels=torch.full_like(token, IGNORE),
    )
