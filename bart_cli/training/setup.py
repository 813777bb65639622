"""Prepare a model for training: layers, device, dtype, frozen parts, sharding, torch.compile.

In: a model and the training settings. Out: the same model, its optimizer and its gradient scaler.
"""

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import nn

from bart_cli.config.model import LAYERDROPS
from bart_cli.config.training import OptimizerConfig, TrainingConfig
from bart_cli.errors import UsageError
from bart_cli.model.bart import Bart
from bart_cli.runtime.precision import apply_matmul_precision, make_scaler
from bart_cli.runtime.world import World
from bart_cli.training.checks import compiler_problem
from bart_cli.training.footprint import as_in_training, longest_batch
from bart_cli.training.loop import batch_loss
from bart_cli.training.optimizers import build_optimizer
from bart_cli.training.parallel import shard_model


def place(model: Bart, training: TrainingConfig, world: World) -> Bart:
    """Move the model to this rank's device and dtype, and freeze parts as configured."""
    apply_matmul_precision(training.precision)  # before any forward pass
    model.activation_checkpointing(training.activation_checkpointing)
    inner = model.model
    if training.freeze_embeddings:
        for part in (inner.shared, inner.encoder.embed_positions, inner.decoder.embed_positions):
            part.requires_grad_(False)
    if training.freeze_encoder:
        inner.encoder.requires_grad_(False)
    return model.to(world.device, torch.bfloat16 if training.parameters == "bf16" else None)


def equip(
    model: Bart,
    training: TrainingConfig,
    config: OptimizerConfig,
    world: World,
    warn: Callable[[str], None] = warnings.warn,
) -> tuple[torch.optim.Optimizer, torch.amp.GradScaler]:
    """Shard and compile the model as configured, and build its optimizer and gradient scaler."""
    if training.sharding == "fsdp" and world.size > 1:
        shard_model(model, world, training)
        config = config.model_copy(update={"backend": "torch"})
    if training.compile is True:
        model.compile()
    elif training.compile == "auto" and compiles_by_default(model, training, world):
        problem = compiler_problem(world.device) or trial_problem(model, training, world.device)
        if world.any(problem is not None):
            model._compiled_call_impl = None
            warn(f"training without torch.compile: {problem or 'another rank cannot compile'}")
    optimizer = build_optimizer(model, config)
    return optimizer, make_scaler(training.precision, world.device)


def compiles_by_default(model: Bart, training: TrainingConfig, world: World) -> bool:
    """Return whether compile=auto compiles: on a GPU that holds the whole model.

    With LayerDrop, the graph would differ between steps.
    """
    skips = any(getattr(model.config, name) for name in LAYERDROPS)
    return world.device.type == "cuda" and training.sharding == "none" and not skips


def trial_problem(model: Bart, training: TrainingConfig, device: torch.device) -> str | None:
    """Compile the model and run one step; return the first lines of the error, or None.

    Has no side effects: weights are not updated, and the random state is restored.
    """
    model.compile()
    try:
        with as_in_training(model, device):
            batch = longest_batch(model, 3, (24, 16), device)  # distinct sizes, for dynamic shapes
            batch_loss(model, batch, training).backward()
        return None
    except Exception as error:  # the compiler can raise any exception; train without it
        lines = [line for line in str(error).splitlines() if line.strip()]
        return " ".join([f"{type(error).__name__}:", *lines[:2]])
    finally:
        model.zero_grad()


def keep_layers(
    model: Bart, encoder_layers: Sequence[int] | None, decoder_layers: Sequence[int] | None
) -> Bart:
    """Keep only these layers (counted from 0), in this order. Modifies and returns the model.

    This makes a student for shrink and fine-tune (Shleifer and Rush 2020).
    """
    changes = {}
    for side, keep in (("encoder", encoder_layers), ("decoder", decoder_layers)):
        if keep is None:
            continue
        stack = getattr(model.model, side)
        count = len(stack.layers)
        if not keep or len(set(keep)) != len(keep) or not all(0 <= i < count for i in keep):
            raise UsageError(
                f"keep_{side}_layers={','.join(map(str, keep))}: expected distinct layers "
                f"from 0 to {count - 1}"
            )
        stack.layers = nn.ModuleList([stack.layers[i] for i in keep])
        changes[f"{side}_layers"] = len(keep)
    model.config = model.config.model_copy(update=changes)
    return model
