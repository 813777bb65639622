"""Attention for bf16 training on a CPU has the values and gradients of exact attention."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bart_cli.model import cpu, layers
from bart_cli.model.cpu import attend
from bart_cli.model.layers import Attention


def error(found: Tensor, exact: Tensor) -> float:
    return ((found.double() - exact).norm() / exact.norm()).item()


@pytest.mark.parametrize("block", [1, 2**10, 2**21], ids=["head by head", "some", "all"])
@pytest.mark.parametrize(
    ("queries", "keys", "kind"),
    [(24, 24, "full"), (24, 24, "causal"), (24, 24, "padded"), (7, 40, "padded"), (1, 9, "full")],
)
def test_values_and_gradients_are_those_of_exact_attention(
    queries: int, keys: int, kind: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "BLOCK", block)
    torch.manual_seed(queries + keys)
    # Like in the model: [B, T, H, E] viewed as [B, H, T, E].
    parts = [torch.randn(3, n, 4, 16).bfloat16().transpose(1, 2) for n in (queries, keys, keys)]
    grad = torch.randn(3, queries, 4, 16).bfloat16().transpose(1, 2)
    mask = None
    if kind == "padded":
        mask = torch.ones(3, 1, 1, keys, dtype=torch.bool)
        mask[1, :, :, -4:] = False
        mask[2, :, :, 1:] = False
    ours = [part.clone().requires_grad_() for part in parts]
    exact = [part.double().requires_grad_() for part in parts]
    found = attend(*ours, mask, kind == "causal", 0.0)
    truth = F.scaled_dot_product_attention(*exact, mask, 0.0, kind == "causal")
    assert error(found, truth) < 0.01
    gradients = torch.autograd.grad(found, ours, grad)
    real = torch.autograd.grad(truth, exact, grad.double())
    for mine, theirs in zip(gradients, real, strict=True):
        assert mine.dtype == torch.bfloat16
        assert error(mine, theirs) < 0.02
    if mask is not None:  # padding gets no gradient
        assert not any(of_keys.masked_select(~mask.mT).any() for of_keys in gradients[1:])


def test_dropout_drops_its_share_of_the_weights_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    q, k = (torch.randn(2, 2, 64, 8).bfloat16().requires_grad_() for _ in range(2))
    v = torch.eye(64, dtype=torch.bfloat16).expand(2, 2, 64, 64).clone().requires_grad_()
    weights = attend(q, k, v, None, True, 0.25)  # values that reveal the weights
    seen = torch.ones(64, 64, dtype=torch.bool).tril().expand_as(weights)
    assert not weights[~seen].any()
    assert math.isclose((weights[seen] == 0).float().mean().item(), 0.25, abs_tol=0.02)
    assert math.isclose(weights.float().sum(-1).mean().item(), 1.0, abs_tol=0.05)


def test_training_in_bf16_on_a_cpu_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    monkeypatch.setattr(
        layers, "attend", lambda *args: called.append(args[0].dtype) or attend(*args)
    )
    attention = Attention(32, 4, dropout=0.0)
    x = torch.randn(2, 5, 32)
    attention(x)
    with torch.autocast("cpu", torch.bfloat16):
        attention(x)
        with torch.no_grad():
            attention(x)
    assert called == [torch.bfloat16]
