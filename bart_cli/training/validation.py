"""Scores of a model on held-out data while it trains."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from bart_cli.config.training import Precision
from bart_cli.data.batch import IGNORE, Batch
from bart_cli.model.bart import Bart
from bart_cli.model.losses import linear_cross_entropy
from bart_cli.training.precision import autocast
from bart_cli.training.world import World


def mean_loss(model: Bart, batches: Iterable[Batch], world: World, precision: Precision) -> float:
    """Negative log-likelihood per target token over all batches of all ranks, not smoothed."""
    total = torch.zeros((), device=world.device)
    tokens = 0
    for batch in batches:
        here = batch.to(world.device)
        with autocast(precision, world.device):
            hidden = model(here.source, here.source_mask, here.decoder_input)
            total += linear_cross_entropy(
                hidden, model.model.shared.weight, model.final_logits_bias, here.labels
            )
        tokens += int((batch.labels != IGNORE).sum())
    return world.sum(total.item()) / max(1.0, world.sum(tokens))
