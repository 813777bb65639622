"""A model made ready to train: what is frozen, where and in which form its weights are kept.

In: a model and the settings of training. Out: the same model placed, its optimizer and its scaler.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch

from bart_cli.config.model import LAYERDROPS
from bart_cli.config.training import OptimizerConfig, TrainingConfig
from bart_cli.model.bart import Bart
from bart_cli.runtime.precision import apply_matmul_precision, make_scaler
from bart_cli.runtime.world import World
from bart_cli.training.checks import compiler_problem
from bart_cli.training.footprint import as_in_training, longest_batch
from bart_cli.training.loop import batch_loss, reduce_dtype
from bart_cli.training.optimizers import build_optimizer
from bart_cli.training.sharding import shard_model


def place(model: Bart, training: TrainingConfig, world: World) -> Bart:
    """The model on this rank's device and in its dtype, with frozen parts as configured."""
    apply_matmul_precision(training.precision)  # before any forward pass
    model.activation_checkpointing(training.activation_checkpointing)
    _freeze(model, training)
    return model.to(world.device, torch.bfloat16 if training.parameters == "bf16" else None)


def equip(
    model: Bart,
    training: TrainingConfig,
    config: OptimizerConfig,
    world: World,
    warn: Callable[[str], None] = warnings.warn,
) -> tuple[torch.optim.Optimizer, torch.amp.GradScaler]:
    """Divide the model among ranks and compile it as configured; then what updates it."""
    if training.sharding == "fsdp" and world.size > 1:
        shard_model(model, world, reduce_dtype(training))
        config = config.model_copy(update={"backend": "torch"})
    if training.compile is True:
        model.compile()
    elif training.compile == "auto" and compiles_by_default(training, world) and not skips(model):
        problem = compiler_problem(world.device) or trial_problem(model, training, world.device)
        if world.any(problem is not None):
            model._compiled_call_impl = None
            warn(f"training without torch.compile: {problem or 'another rank cannot compile'}")
    optimizer = build_optimizer(model, config)
    return optimizer, make_scaler(training.precision, world.device)


def compiles_by_default(training: TrainingConfig, world: World) -> bool:
    """Whether compile=auto tries: on a GPU that holds the whole model."""
    return world.device.type == "cuda" and training.sharding == "none"


def skips(model: Bart) -> bool:
    """Whether LayerDrop may skip layers; the graph then differs from step to step."""
    return any(getattr(model.config, name) for name in LAYERDROPS)


def trial_problem(model: Bart, training: TrainingConfig, device: torch.device) -> str | None:
    """Compile the model and try a step; the beginning of the error, or None.

    Leaves no trace: weights are not updated, and the random state is as before.
    """
    model.compile()
    try:
        with as_in_training(model, device):
            batch = longest_batch(model, 3, (24, 16), device)  # no two sizes alike
            batch_loss(model, batch, training).backward()
        return None
    except Exception as error:  # whatever the compiler raises: training goes on without it
        lines = [line for line in str(error).splitlines() if line.strip()]
        return " ".join([f"{type(error).__name__}:", *lines[:2]])
    finally:
        model.zero_grad()


def _freeze(model: Bart, training: TrainingConfig) -> None:
    inner = model.model
    frozen: list[torch.nn.Module] = []
    if training.freeze_embeddings:
        frozen += [inner.shared, inner.encoder.embed_positions, inner.decoder.embed_positions]
    if training.freeze_encoder:
        frozen.append(inner.encoder)
    for module in frozen:
        module.requires_grad_(False)
