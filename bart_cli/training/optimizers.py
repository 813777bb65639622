"""The optimizer of a run, and its learning rate at every step."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from bart_cli.config.training import OptimizerConfig, ScheduleConfig
from bart_cli.training.eager import AdamW, EagerOptimizer
from bart_cli.training.lamb import NVLamb

FLOOR = 1e-30  # added to the squared gradient by Adafactor


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


def learning_rate(step: int, max_steps: int, peak: float, config: ScheduleConfig) -> float:
    """Compute the learning rate of optimizer step `step` (the first is 1) out of `max_steps`.

    Linear warm-up reaches `peak` at step `warmup_steps`; the decay reaches `end_learning_rate` at
    the last step. This matches the reference, which advances its schedule before each update.
    """
    if step < config.warmup_steps:
        return peak * step / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, max_steps - config.warmup_steps)
    end = config.end_learning_rate
    if config.name == "constant":
        return peak
    if config.name == "polynomial":
        return end + (peak - end) * (1 - done) ** config.power
    if config.name == "linear":
        return end + (peak - end) * (1 - done)
    if done >= 1:
        return end  # not the start of another cycle
    cycles = config.cycles if config.name == "cosine_restarts" else 1
    return end + (peak - end) * 0.5 * (1 + math.cos(math.pi * ((cycles * done) % 1.0)))


class Adafactor(EagerOptimizer):
    """Adafactor (Shazeer and Stern 2018) as configured by fairseq and the reference.

    It never synchronizes with the device. The learning rate is the one of the schedule; torch's
    Adafactor would always scale it by the size of the weights and bound it by the step. For each
    matrix w with gradient g at step t:

        b = 1 - t^-0.8
        row = b row + (1 - b) mean over columns of (g^2 + 1e-30)         col: the same over rows
        u = g / sqrt(row col / mean(row))
        w = w - lr (decay w + u / max(1, RMS(u)))

    For vectors, the moving average of g^2 + 1e-30 is kept unfactored. There is no first moment.

    Args:
        groups: parameter groups, each with its `weight_decay`.
        lr: learning rate.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update all parameters once."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    update = self._update(parameter, parameter.grad)
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.sub_(update, alpha=group["lr"])
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor) -> Tensor:
        """Update the moving averages and return u / max(1, RMS(u))."""
        state = self.state[parameter]
        factored = gradient.dim() > 1
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            if factored:
                state["row"] = gradient.new_zeros(gradient.shape[:-1])
                state["col"] = gradient.new_zeros(gradient.shape[:-2] + gradient.shape[-1:])
            else:
                state["exp_avg_sq"] = torch.zeros_like(gradient)
        state["step"] += 1
        new = float(state["step"]) ** -0.8
        square = gradient.square().add_(FLOOR)
        if factored:
            row, col = state["row"], state["col"]
            row.lerp_(square.mean(-1), new)
            col.lerp_(square.mean(-2), new)
            scale = (row / row.mean(-1, keepdim=True)).rsqrt_().unsqueeze(-1)
            update = gradient * scale * col.rsqrt().unsqueeze(-2)
        else:
            update = gradient * state["exp_avg_sq"].lerp_(square, new).rsqrt()
        rms = update.norm() / update.numel() ** 0.5
        return update.div_(rms.clamp_(min=1.0))
