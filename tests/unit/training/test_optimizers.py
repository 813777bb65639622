"""NVLAMB against plain loops, schedules, and what is decayed."""

from __future__ import annotations

import math

import pytest
import torch

from bart_cli.config.model import ModelConfig
from bart_cli.config.training import OptimizerConfig, ScheduleConfig
from bart_cli.model.bart import Bart
from bart_cli.training.lamb import NVLamb
from bart_cli.training.optimizers import build_optimizer
from bart_cli.training.schedule import learning_rate


def plain_nvlamb(
    weights: list[torch.Tensor], gradients: list[list[torch.Tensor]], decays: list[float], lr: float
) -> list[torch.Tensor]:
    """The algorithm of the docstring, one tensor and one step at a time, in float64."""
    b1, b2, eps = 0.9, 0.999, 1e-6
    w = [x.double().clone() for x in weights]
    m = [torch.zeros_like(x) for x in w]
    v = [torch.zeros_like(x) for x in w]
    for step, raw in enumerate(gradients, 1):
        norm = math.sqrt(sum(float((g.double() ** 2).sum()) for g in raw))
        for i, g32 in enumerate(raw):
            g = g32.double() / norm
            m[i] = b1 * m[i] + (1 - b1) * g
            v[i] = b2 * v[i] + (1 - b2) * g * g
            u = (m[i] / (1 - b1**step)) / ((v[i] / (1 - b2**step)).sqrt() + eps)
            u = u + decays[i] * w[i]
            ratio = 1.0
            if decays[i]:
                ratio = float(w[i].norm() / u.norm()) if w[i].norm() > 0 else 1.0
            w[i] = w[i] - lr * ratio * u
    return w


def test_nvlamb_equals_plain_loops_over_100_steps() -> None:
    torch.manual_seed(0)
    weights = [torch.randn(7, 5), torch.randn(11), torch.zeros(3, 4)]
    decays = [0.1, 0.0, 0.1]
    parameters = [torch.nn.Parameter(w.clone()) for w in weights]
    groups = [{"params": [p], "weight_decay": d} for p, d in zip(parameters, decays, strict=True)]
    optimizer = NVLamb(groups, lr=5e-3, eps=1e-6)
    gradients = [[torch.randn_like(w) * 3 for w in weights] for _ in range(100)]
    for step in gradients:
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
    for ours, plain in zip(parameters, plain_nvlamb(weights, gradients, decays, 5e-3), strict=True):
        torch.testing.assert_close(ours.data, plain.float(), rtol=1e-5, atol=1e-6)


def test_a_gradient_of_zeros_does_not_break_nvlamb() -> None:
    parameter = torch.nn.Parameter(torch.ones(3, 3))
    parameter.grad = torch.zeros(3, 3)
    NVLamb([parameter], lr=0.1, weight_decay=0.0).step()
    assert torch.equal(parameter.data, torch.ones(3, 3))


@pytest.mark.parametrize("name", ["nvlamb", "adamw", "adafactor"])
def test_every_optimizer_lowers_a_loss_and_decays_matrices_only(
    name: str, tiny_config: ModelConfig
) -> None:
    torch.manual_seed(0)
    model = Bart(tiny_config)
    config = OptimizerConfig.model_validate({"name": name, "learning_rate": 1e-2})
    optimizer = build_optimizer(model, config)
    decayed = {id(p) for g in optimizer.param_groups if g["weight_decay"] for p in g["params"]}
    if name != "adafactor":
        for parameter_name, parameter in model.named_parameters():
            is_matrix = not parameter_name.endswith("bias") and "norm" not in parameter_name
            assert (id(parameter) in decayed) == is_matrix, parameter_name
    source = torch.randint(4, 400, (2, 6))
    losses = []
    for _ in range(8):
        logits = model.logits(model(source, None, source.roll(1, 1)))
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), source.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("name", "step", "expected"),
    [
        ("polynomial", 0, 0.0),
        ("polynomial", 5, 0.5),
        ("polynomial", 10, 1.0),
        ("polynomial", 60, 0.1 + 0.9 * 0.5**2),
        ("polynomial", 110, 0.1),
        ("linear", 60, 0.55),
        ("cosine", 60, 0.55),
        ("cosine", 110, 0.1),
        ("cosine_restarts", 59, 0.1 + 0.45 * (1 + math.cos(math.pi * 0.98))),
        ("cosine_restarts", 60, 1.0),
        ("constant", 110, 1.0),
    ],
)
def test_the_schedule_is_what_it_says(name: str, step: int, expected: float) -> None:
    config = ScheduleConfig.model_validate(
        {"name": name, "warmup_steps": 10, "power": 2.0, "end_learning_rate": 0.1, "cycles": 2}
    )
    assert learning_rate(step, 110, 1.0, config) == pytest.approx(expected)


def test_bf16_weights_follow_their_fp32_master() -> None:
    torch.manual_seed(0)
    start = torch.randn(6, 5).bfloat16().float()
    exact = torch.nn.Parameter(start.clone())
    rounded = torch.nn.Parameter(start.bfloat16())
    pairs = [(p, NVLamb([p], lr=1e-4, weight_decay=0.1)) for p in (exact, rounded)]
    for _ in range(20):
        gradient = torch.randn(6, 5).bfloat16()
        for parameter, optimizer in pairs:
            parameter.grad = gradient.to(parameter.dtype)
            optimizer.step()
    master = pairs[1][1].state[rounded]["master"]
    torch.testing.assert_close(master, exact.data)  # small steps are not lost in rounding
    torch.testing.assert_close(rounded.data, exact.data.bfloat16())
