"""LAMB: layer-wise adaptive moments for large batches (You et al. 2020), as in NVIDIA's apex.

For each tensor w with gradient g, which the loop has clipped by the global norm:

    m = b1 m + (1 - b1) g          v = b2 v + (1 - b2) g^2
    u = (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps) + decay w
    w = w - lr (|w| / |u|) u       (the trust ratio |w| / |u| is 1 if either norm is 0)

Tensors without decay have a trust ratio of 1 unless `trust_without_decay` (apex: `use_nvlamb`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from bart_cli.training.eager import EagerOptimizer
from bart_cli.training.sharding import local_shard


class NVLamb(EagerOptimizer):
    """LAMB with fp32 state that updates all tensors of a group at once (`foreach`).

    For half-precision parameters, the state has fp32 master weights (`master`): these are updated
    and then rounded into the parameter.

    Args:
        params: parameters, or parameter groups with their `weight_decay`.
        lr, betas, eps, weight_decay: as above.
        trust_without_decay: apply the trust ratio also to groups without weight decay.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        trust_without_decay: bool = False,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)
        self._trust_without_decay = trust_without_decay

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update all parameters once."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            self._update(group)
        return loss

    def _update(self, group: dict[str, Any]) -> None:
        trained = [p for p in group["params"] if p.grad is not None]
        if not trained:
            return
        states = [self._state(p) for p in trained]
        weights = [state.get("master", p) for state, p in zip(states, trained, strict=True)]
        first = [state["exp_avg"] for state in states]
        second = [state["exp_avg_sq"] for state in states]
        for state in states:
            state["step"] += 1
        step = int(states[0]["step"].item())
        beta1, beta2 = group["betas"]
        decay = group["weight_decay"]

        gradients = [p.grad.float() for p in trained if p.grad is not None]
        torch._foreach_lerp_(first, gradients, 1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, gradients, gradients, 1 - beta2)
        root = torch._foreach_div(second, 1 - beta2**step)
        torch._foreach_sqrt_(root)
        torch._foreach_add_(root, group["eps"])
        update = torch._foreach_div(first, 1 - beta1**step)
        torch._foreach_div_(update, root)
        if decay:
            torch._foreach_add_(update, weights, alpha=decay)
        if decay or self._trust_without_decay:
            torch._foreach_mul_(update, _trust_ratios(weights, list(update)))  # type: ignore[arg-type]
        torch._foreach_mul_(update, -group["lr"])
        torch._foreach_add_(weights, update)
        rounded = [
            (local_shard(p), local_shard(w))
            for p, w in zip(trained, weights, strict=True)
            if p is not w
        ]
        if rounded:
            torch._foreach_copy_([p for p, _ in rounded], [w for _, w in rounded])

    def _state(self, parameter: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = torch.zeros_like(parameter, dtype=torch.float32)
            if parameter.dtype != torch.float32:
                state["master"] = parameter.detach().float()
        return state


def _trust_ratios(weights: list[Any], update: list[Tensor]) -> list[Tensor]:
    """Compute the trust ratio of each tensor without synchronizing with the device."""
    weight_norms = torch.stack(list(torch._foreach_norm(weights)))
    update_norms = torch.stack(list(torch._foreach_norm(update)))
    usable = (weight_norms > 0) & (update_norms > 0)
    ratios = torch.where(usable, weight_norms / update_norms, torch.ones_like(weight_norms))
    return list(ratios.unbind())
