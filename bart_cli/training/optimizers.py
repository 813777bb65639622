"""From the configuration to an optimizer over a model's parameters."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import torch
from torch import nn

from bart_cli.config.training import OptimizerConfig, Precision
from bart_cli.training.lamb import NVLamb


def build_optimizer(
    model: nn.Module, config: OptimizerConfig, precision: Precision = "fp32"
) -> torch.optim.Optimizer:
    """The configured optimizer; weight decay on matrices only, not on biases and LayerNorms."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    betas = (config.beta1, config.beta2)
    on_gpu = all(parameter.is_cuda for parameter in trained)
    apex = apex_optimizers() if config.backend == "apex" or on_gpu else None
    if config.backend != "torch" and apex is not None and config.name != "adafactor":
        return _apex_optimizer(apex, groups, config, precision)
    if config.name == "nvlamb":
        return NVLamb(
            groups,
            lr=config.learning_rate,
            betas=betas,
            eps=config.epsilon,
            trust_without_decay=config.trust_without_decay,
        )
    if config.name == "adamw":
        return torch.optim.AdamW(
            groups, lr=config.learning_rate, betas=betas, eps=config.epsilon, fused=True
        )
    return torch.optim.Adafactor(groups, lr=config.learning_rate)


def apex_optimizers() -> ModuleType | None:
    """NVIDIA's `apex.optimizers`; None when it is not there (PyPI's `apex` has no such module)."""
    try:
        return importlib.import_module("apex.optimizers")
    except ImportError:
        return None


def backend_problem(config: OptimizerConfig) -> str | None:
    """Why the asked backend cannot be used, None when it can."""
    if config.backend != "apex":
        return None
    if config.name == "adafactor":
        return "optimizer.backend=apex: apex has no adafactor; use torch"
    if apex_optimizers() is None:
        return (
            "optimizer.backend=apex: there is no apex.optimizers here; install NVIDIA's apex from "
            "its repository (the `apex` of PyPI is another project), or use auto"
        )
    return None


def _apex_optimizer(
    apex: ModuleType, groups: list[dict[str, Any]], config: OptimizerConfig, precision: Precision
) -> torch.optim.Optimizer:
    """apex's kernel. Its LAMB divides gradients by their norm only where that is above 1."""
    common: dict[str, Any] = {
        "lr": config.learning_rate,
        "betas": (config.beta1, config.beta2),
        "eps": config.epsilon,
    }
    if config.name == "adamw":
        kind = apex.FusedAdam
        common["adam_w_mode"] = True
    else:
        common["use_nvlamb"] = config.trust_without_decay
        # The mixed-precision one would unscale fp16 gradients, which the loop has done already.
        mixed = getattr(apex, "FusedMixedPrecisionLamb", None)
        kind = apex.FusedLAMB if mixed is None or precision == "fp16" else mixed
    optimizer: torch.optim.Optimizer = kind(groups, **common)
    return optimizer
