"""Build the configured optimizer for a model."""

from __future__ import annotations

import importlib
import math
from types import ModuleType
from typing import Any

import torch
from torch import nn

from bart_cli.config.training import OptimizerConfig
from bart_cli.training.adafactor import Adafactor
from bart_cli.training.eager import AdamW
from bart_cli.training.lamb import NVLamb


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Build the configured optimizer, with weight decay on matrices but not on biases.

    The kernels of apex compute the same updates; backend `auto` uses them for fp32 weights on a
    GPU.
    """
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {
            "params": [p for name, p in trained if _is_decayed(name, p, config) == decayed],
            "weight_decay": config.weight_decay if decayed else 0.0,
        }
        for decayed in (True, False)
    ]
    groups = [group for group in groups if group["params"]]
    common: dict[str, Any] = {
        "lr": config.learning_rate,
        "betas": (config.beta1, config.beta2),
        "eps": config.epsilon,
    }
    if config.name == "adafactor":
        return Adafactor(groups, config.learning_rate)
    fit = all(p.is_cuda and p.dtype == torch.float32 for _, p in trained)
    apex = apex_optimizers() if config.backend == "apex" or fit else None
    if apex is not None and config.backend != "torch":
        fused: torch.optim.Optimizer
        if config.name == "adamw":
            fused = apex.FusedAdam(groups, adam_w_mode=True, **common)
        else:  # the loop clips gradients, so apex must not clip them again
            fused = apex.FusedLAMB(
                groups, max_grad_norm=math.inf, use_nvlamb=config.trust_without_decay, **common
            )
        return fused
    if config.name == "adamw":
        return AdamW(groups, fused=True, **common)
    return NVLamb(groups, trust_without_decay=config.trust_without_decay, **common)


def _is_decayed(name: str, parameter: nn.Parameter, config: OptimizerConfig) -> bool:
    """Return whether weight decay applies to a parameter."""
    return parameter.dim() > 1 or (config.decay_layer_norms and not name.endswith("bias"))


def apex_optimizers() -> ModuleType | None:
    """Import NVIDIA's `apex.optimizers`, or return None if it or its kernels are not installed.

    The `apex` of PyPI is another project, and NVIDIA's may have been built without CUDA (`amp_C`).
    """
    try:
        importlib.import_module("amp_C")
        return importlib.import_module("apex.optimizers")
    except ImportError:
        return None


def backend_problem(config: OptimizerConfig, parameters: str = "fp32") -> str | None:
    """Return the reason why the backend is unavailable for weights of this dtype, or None."""
    if config.backend != "apex":
        return None
    if config.name == "adafactor":
        return "optimizer.backend=apex: apex has no adafactor; use torch"
    if parameters != "fp32":
        return (
            f"optimizer.backend=apex cannot be combined with training.parameters={parameters}: "
            "apex rounds every update; use torch"
        )
    if apex_optimizers() is None:
        return (
            "optimizer.backend=apex: apex.optimizers or its kernels (amp_C) are not installed; "
            "install NVIDIA's apex from its repository (the `apex` of PyPI is another project), or "
            "use auto"
        )
    return None
