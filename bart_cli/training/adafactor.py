"""Adafactor (Shazeer and Stern 2018) as configured by fairseq and the reference.

The learning rate is the one of the schedule; torch's Adafactor would always scale it by the size of
the weights and bound it by the step. For each matrix w with gradient g at step t:

    b = 1 - t^-0.8
    row = b row + (1 - b) mean over columns of (g^2 + 1e-30)         col: the same over rows
    u = g / sqrt(row col / mean(row))
    w = w - lr (decay w + u / max(1, RMS(u)))

For vectors, the moving average of g^2 + 1e-30 is kept unfactored. There is no first moment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bart_cli.training.eager import EagerOptimizer

FLOOR = 1e-30  # added to the squared gradient


class Adafactor(EagerOptimizer):
    """Adafactor for fp32 parameters that never synchronizes with the device.

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
