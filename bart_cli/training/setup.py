"""A model made ready to train: what is frozen, where and in which form its weights are kept.

In: a model and the settings of training. Out: the same model placed, its optimizer and its scaler.
"""

from __future__ import annotations

import torch

from bart_cli.config.training import OptimizerConfig, TrainingConfig
from bart_cli.model.bart import Bart
from bart_cli.runtime.precision import apply_matmul_precision, make_scaler
from bart_cli.runtime.world import World
from bart_cli.training.loop import reduce_dtype
from bart_cli.training.optimizers import build_optimizer
from bart_cli.training.sharding import shard_model


def place(model: Bart, training: TrainingConfig, world: World) -> Bart:
    """The model on this rank's device and in its dtype, with frozen parts as configured."""
    apply_matmul_precision(training.precision)  # before any forward pass
    model.activation_checkpointing(training.activation_checkpointing)
    _freeze(model, training)
    return model.to(world.device, torch.bfloat16 if training.parameters == "bf16" else None)


def equip(
    model: Bart, training: TrainingConfig, config: OptimizerConfig, world: World
) -> tuple[torch.optim.Optimizer, torch.amp.GradScaler]:
    """Divide the model among ranks and compile it as configured; then what updates it."""
    if training.sharding == "fsdp" and world.size > 1:
        shard_model(model, world, reduce_dtype(training))
        config = config.model_copy(update={"backend": "torch"})
    if training.compile:
        model.compile()
    optimizer = build_optimizer(model, config)
    return optimizer, make_scaler(training.precision, world.device)


def _freeze(model: Bart, training: TrainingConfig) -> None:
    inner = model.model
    frozen: list[torch.nn.Module] = []
    if training.freeze_embeddings:
        frozen += [inner.shared, inner.encoder.embed_positions, inner.decoder.embed_positions]
    if training.freeze_encoder:
        frozen.append(inner.encoder)
    for module in frozen:
        module.requires_grad_(False)
