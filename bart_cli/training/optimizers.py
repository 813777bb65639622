"""The optimizer of a run, and its learning rate at every step."""

import importlib
import inspect
import math
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from bart_cli.config.training import OptimizerConfig, ScheduleConfig
from bart_cli.training.parallel import local_shard

FLOOR = 1e-30  # added to the squared gradient by Adafactor


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Build the configured optimizer, with weight decay on matrices but not on biases.

    The kernels of apex compute the same updates; backend `auto` uses them for fp32 weights on a
    GPU.
    """
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for name, p in trained if _is_decayed(name, p, config) == decayed]}
        | {"weight_decay": config.weight_decay if decayed else 0.0}
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
    trust = config.trust_without_decay
    if apex is not None and config.backend != "torch":
        if config.name == "adamw":
            return apex.FusedAdam(groups, adam_w_mode=True, **common)
        # The loop clips gradients, so apex must not clip them again.
        return apex.FusedLAMB(groups, max_grad_norm=math.inf, use_nvlamb=trust, **common)
    if config.name == "adamw":
        return AdamW(groups, fused=True, **common)
    return NVLamb(groups, trust_without_decay=trust, **common)


def _is_decayed(name: str, parameter: nn.Parameter, config: OptimizerConfig) -> bool:
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


class EagerOptimizer(torch.optim.Optimizer):
    """An optimizer whose bookkeeping imports nothing.

    torch wraps some methods so that a compiled function does not trace them. The first call of a
    wrapper imports `torch._dynamo`: two seconds in each process, although this package never
    compiles the optimizer.
    """

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)


class AdamW(EagerOptimizer, torch.optim.AdamW):
    """AdamW of torch, with the same updates."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))  # type: ignore[assignment]


class NVLamb(EagerOptimizer):
    """LAMB for large batches (You et al. 2020), as in NVIDIA's apex, with fp32 state.

    For each tensor w with gradient g, which the loop has clipped by the global norm:

        m = b1 m + (1 - b1) g          v = b2 v + (1 - b2) g^2
        u = (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps) + decay w
        w = w - lr (|w| / |u|) u       (the trust ratio |w| / |u| is 1 if either norm is 0)

    Tensors without decay have a trust ratio of 1 unless `trust_without_decay` (apex: `use_nvlamb`).
    For half-precision parameters, the state has fp32 master weights (`master`): these are updated
    and then rounded into the parameter.
    """

    def __init__(
        self, groups: Iterable[Any], *, trust_without_decay: bool = False, **defaults: Any
    ) -> None:
        super().__init__(groups, {"weight_decay": 0.0} | defaults)
        self._trust_without_decay = trust_without_decay

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Update all parameters once."""
        for group in self.param_groups:
            self._update(group)

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
        halves = [(p, w) for p, w in zip(trained, weights, strict=True) if p is not w]
        if halves:
            torch._foreach_copy_(
                [local_shard(p) for p, _ in halves], [local_shard(w) for _, w in halves]
            )

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
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Update all parameters once."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    update = self._update(parameter, parameter.grad)
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.sub_(update, alpha=group["lr"])

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
