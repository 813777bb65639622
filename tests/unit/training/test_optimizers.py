"""Optimizers and schedules against the reference: apex's formulas, transformers' Adafactor."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import optimization as theirs

from bart_cli.config.model import ModelConfig
from bart_cli.config.training import OptimizerConfig, ScheduleConfig
from bart_cli.model.bart import Bart
from bart_cli.runtime.precision import make_scaler
from bart_cli.training.loop import update
from bart_cli.training.optimizers import (
    NVLamb,
    backend_problem,
    build_optimizer,
    learning_rate,
)
from tests.conftest import tiny_model_config

pytestmark = pytest.mark.slow


class Fused(torch.optim.Optimizer):
    """Base class of apex's optimizers: steps counted per group, `zero_grad` without arguments."""

    def zero_grad(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def moments(self, group: dict[str, Any], p: Tensor, g: Tensor) -> Tensor:
        """Compute the bias-corrected m / (sqrt(v) + eps)."""
        state, (b1, b2), t = self.state[p], group["betas"], group["step"]
        if not state:
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
        m, v = state["exp_avg"], state["exp_avg_sq"]
        m.copy_(b1 * m + (1 - b1) * g)
        v.copy_(b2 * v + (1 - b2) * g * g)
        return (m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt() + group["eps"])


class FusedLAMB(Fused):
    """apex.optimizers.FusedLAMB in plain tensors, with its defaults."""

    def __init__(  # type: ignore[no-untyped-def]
        self,
        params,
        lr=1e-3,
        betas=(0.9, 0.999),
        eps=1e-6,
        weight_decay=0.01,
        max_grad_norm=1.0,
        use_nvlamb=False,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)
        self.max_grad_norm, self.use_nvlamb = max_grad_norm, use_nvlamb

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        everything = [p.grad for group in self.param_groups for p in group["params"]]
        norm = torch.stack([g.norm() for g in everything if g is not None]).norm()
        clip = norm / self.max_grad_norm if norm > self.max_grad_norm else 1.0
        for group in self.param_groups:
            group["step"] = group.get("step", 0) + 1
            for p in group["params"]:
                u = self.moments(group, p, p.grad / clip) + group["weight_decay"] * p
                ratio = 1.0
                if (self.use_nvlamb or group["weight_decay"] != 0) and p.norm() > 0 < u.norm():
                    ratio = p.norm() / u.norm()
                p.sub_(group["lr"] * ratio * u)
                p.grad.copy_(u)  # like the kernel


class FusedAdam(Fused):
    """apex.optimizers.FusedAdam in plain tensors, with its defaults."""

    def __init__(  # type: ignore[no-untyped-def]
        self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, adam_w_mode=True, weight_decay=0.0
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)
        assert adam_w_mode

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            group["step"] = group.get("step", 0) + 1
            for p in group["params"]:
                p.sub_(group["lr"] * (self.moments(group, p, p.grad) + group["weight_decay"] * p))


@pytest.fixture
def apex(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("apex.optimizers")
    module.FusedLAMB, module.FusedAdam = FusedLAMB, FusedAdam  # type: ignore[attr-defined]
    for name in ("apex", "amp_C"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "apex.optimizers", module)
    return module


Build = Callable[[Bart], torch.optim.Optimizer]


def after_100_steps(model: Bart, build: Build, clip_in_loop: float) -> dict[str, Tensor]:
    """Return the weights after 100 updates of the loop, with gradient norms of 0.01 to 10."""
    torch.manual_seed(1)
    optimizer, parameters = build(model), list(model.parameters())
    job: Any = SimpleNamespace(
        parameters=parameters,
        optimizer=optimizer,
        scaler=make_scaler("fp32", torch.device("cpu")),
        optimizer_config=SimpleNamespace(clip_norm=clip_in_loop),
    )
    for step in range(100):
        optimizer.zero_grad()
        gradients = [torch.randn_like(p) for p in parameters]
        norm = torch.stack([g.norm() for g in gradients]).norm()
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient / norm * 10 ** (step % 4 - 2)
        update(job, 5e-3 * (1 - step / 100))
    return dict(model.state_dict())


def reference_groups(model: Bart) -> list[dict[str, Any]]:
    """Return whether the reference decays a parameter."""
    no_decay = ["bias", "LayerNorm.weight"]
    named = list(model.named_parameters())
    spared = [any(part in name for part in no_decay) for name, _ in named]
    return [
        {"params": [p for (_, p), out in zip(named, spared, strict=True) if not out]}
        | {"weight_decay": 0.1},
        {"params": [p for (_, p), out in zip(named, spared, strict=True) if out]}
        | {"weight_decay": 0.0},
    ]


def reference_optimizer(model: Bart, name: str, **extra: Any) -> torch.optim.Optimizer:
    """Build the optimizer like the reference."""
    groups = reference_groups(model)
    if name == "nvlamb":
        return FusedLAMB(groups, lr=5e-3, eps=1e-8, max_grad_norm=0.1, **extra)
    if name == "adamw":
        return FusedAdam(groups, lr=5e-3, eps=1e-8)
    optimizer: torch.optim.Optimizer = theirs.Adafactor(
        groups, lr=5e-3, scale_parameter=False, relative_step=False
    )
    return optimizer


@pytest.mark.parametrize(
    ("name", "backend", "trust"),
    [
        ("nvlamb", "torch", False),
        ("nvlamb", "torch", True),
        ("nvlamb", "apex", False),
        ("adamw", "torch", False),
        ("adamw", "apex", False),
        ("adafactor", "torch", False),
    ],
)
def test_every_optimizer_and_backend_ends_where_the_reference_does(
    apex: ModuleType, name: str, backend: str, trust: bool
) -> None:
    settings = {"name": name, "backend": backend, "clip_norm": 0.1, "decay_layer_norms": True}
    config = OptimizerConfig.model_validate(settings | {"trust_without_decay": trust})
    # Pre-LN has every kind of parameter.
    model_config = tiny_model_config(pre_layer_norm=True, encoder_layers=1, decoder_layers=1)
    weights = []
    extra = {"use_nvlamb": True} if trust else {}
    builds: list[tuple[Build, float]] = [
        (lambda model: build_optimizer(model, config), 0.1),
        (  # LAMB clips inside
            lambda model: reference_optimizer(model, name, **extra),
            0.0 if name == "nvlamb" else 0.1,
        ),
    ]
    for build, clip in builds:
        torch.manual_seed(0)
        weights.append(after_100_steps(Bart(model_config), build, clip))
    for key, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][key], rtol=0, atol=1e-5, msg=key)


def test_auto_uses_apex_only_for_fp32_weights_on_gpus(apex: ModuleType) -> None:
    model = torch.nn.Linear(3, 3)
    assert isinstance(build_optimizer(model, OptimizerConfig(name="adamw")), torch.optim.AdamW)
    problem = backend_problem(OptimizerConfig(name="nvlamb", backend="apex"), "bf16")
    assert problem is not None
    assert "training.parameters=bf16" in problem
    assert backend_problem(OptimizerConfig(name="nvlamb", backend="apex")) is None


def test_missing_apex_is_explained() -> None:
    problem = backend_problem(OptimizerConfig(name="nvlamb", backend="apex"))
    assert problem is not None
    assert "the `apex` of PyPI is another project" in problem
    assert backend_problem(OptimizerConfig(name="nvlamb", backend="auto")) is None


def test_weight_decay_is_on_matrices_only_by_default(tiny_config: ModelConfig) -> None:
    model = Bart(tiny_config)
    optimizer = build_optimizer(model, OptimizerConfig(name="nvlamb"))
    decayed = {id(p) for g in optimizer.param_groups if g["weight_decay"] for p in g["params"]}
    for name, parameter in model.named_parameters():
        is_matrix = not name.endswith("bias") and "norm" not in name
        assert (id(parameter) in decayed) == is_matrix, name


def test_a_gradient_of_zeros_does_not_break_nvlamb() -> None:
    parameter = torch.nn.Parameter(torch.ones(3, 3))
    parameter.grad = torch.zeros(3, 3)
    NVLamb([parameter], lr=0.1, betas=(0.9, 0.999), eps=1e-8).step()
    assert torch.equal(parameter.data, torch.ones(3, 3))


def reference_rates(name: str, warmup: int, steps: int) -> list[float]:
    """Return the rates of steps 1, 2, …: transformers' schedule, advanced before each step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=5e-3)
    make = {
        "polynomial": theirs.get_polynomial_decay_schedule_with_warmup,
        "linear": theirs.get_linear_schedule_with_warmup,
        "cosine": theirs.get_cosine_schedule_with_warmup,
        "cosine_restarts": theirs.get_cosine_with_hard_restarts_schedule_with_warmup,
    }[name]
    cycles = {"num_cycles": 2} if name == "cosine_restarts" else {}
    schedule = make(optimizer, num_warmup_steps=warmup, num_training_steps=steps, **cycles)
    rates = []
    for _ in range(steps):
        schedule.step()
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@pytest.mark.parametrize("warmup", [0, 10])
@pytest.mark.parametrize("name", ["polynomial", "linear", "cosine", "cosine_restarts"])
def test_the_learning_rate_of_every_step_equals_the_reference(name: str, warmup: int) -> None:
    config = ScheduleConfig.model_validate(
        {"name": name, "warmup_steps": warmup}
        | ({"end_learning_rate": 1e-7} if name == "polynomial" else {})
        | ({"cycles": 2} if name == "cosine_restarts" else {})
    )
    ours = [learning_rate(step, 110, 5e-3, config) for step in range(1, 111)]
    assert ours == pytest.approx(reference_rates(name, warmup, 110), rel=1e-9, abs=1e-15)


def test_the_rate_follows_power_end_and_constant() -> None:
    config = ScheduleConfig(warmup_steps=10, power=2.0, end_learning_rate=0.1)
    rates = [learning_rate(step, 110, 1.0, config) for step in (1, 10, 60, 110)]
    assert rates == pytest.approx([0.1, 1.0, 0.1 + 0.9 * 0.5**2, 0.1])
    assert learning_rate(110, 110, 1.0, ScheduleConfig(name="constant")) == 1.0


def test_bf16_weights_follow_their_fp32_master_weights() -> None:
    torch.manual_seed(0)
    start = torch.randn(6, 5).bfloat16().float()
    exact = torch.nn.Parameter(start.clone())
    rounded = torch.nn.Parameter(start.bfloat16())
    pairs = [
        (p, NVLamb([p], lr=1e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1))
        for p in (exact, rounded)
    ]
    for _ in range(20):
        gradient = torch.randn(6, 5).bfloat16()
        for parameter, optimizer in pairs:
            parameter.grad = gradient.to(parameter.dtype)
            optimizer.step()
    master = pairs[1][1].state[rounded]["master"]
    torch.testing.assert_close(master, exact.data)  # small steps are not lost in rounding
    torch.testing.assert_close(rounded.data, exact.data.bfloat16())
