"""From the configuration to an optimizer over a model's parameters."""

from __future__ import annotations

import torch
from torch import nn

from bart_cli.config.training import OptimizerConfig
from bart_cli.training.lamb import NVLamb


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """The configured optimizer; weight decay on matrices only, not on biases and LayerNorms."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    betas = (config.beta1, config.beta2)
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
