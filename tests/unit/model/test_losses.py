"""The chunked loss has the value and gradients of PyTorch's loss."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from bart_cli.data.batch import IGNORE
from bart_cli.model import losses
from bart_cli.model.losses import linear_cross_entropy


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("rows_in_a_chunk", [1, 3, 1000])
def test_equals_the_plain_loss_whatever_the_chunk(
    smoothing: float, rows_in_a_chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(losses, "CHUNK_LOGITS", 50 * rows_in_a_chunk)
    hidden = torch.randn(2, 5, 8, requires_grad=True)
    weight = torch.randn(50, 8, requires_grad=True)
    bias = torch.randn(1, 50)
    labels = torch.randint(0, 50, (2, 5))
    labels[1, 3:] = IGNORE

    loss = linear_cross_entropy(hidden, weight, bias, labels, smoothing=smoothing)
    got = torch.autograd.grad(3 * loss, (hidden, weight))
    logits = F.linear(hidden, weight) + bias
    plain = F.cross_entropy(
        logits.flatten(0, 1),
        labels.flatten(),
        ignore_index=IGNORE,
        reduction="sum",
        label_smoothing=smoothing,
    )
    torch.testing.assert_close(loss, plain)
    for ours, theirs in zip(got, torch.autograd.grad(3 * plain, (hidden, weight)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_frozen_embedding_gets_no_gradient() -> None:
    hidden = torch.randn(4, 8, requires_grad=True)
    weight = torch.randn(50, 8)
    loss = linear_cross_entropy(hidden, weight, torch.zeros(50), torch.tensor([1, 2, 3, 4]))
    loss.backward()
    assert hidden.grad is not None
    assert weight.grad is None


FUSED = """
import torch
from torch.nn import functional as F
from bart_cli.model import fused_loss, losses
fused_loss.BLOCK = 64
losses.CHUNK_LOGITS = 2 * 150
losses.fused_kernel = lambda device: fused_loss.fused_loss
torch.manual_seed(0)
bias, labels = torch.randn(150), torch.tensor([0, 149, -100, 7, 64])
for dtype in (torch.float32, torch.bfloat16):
    for smoothing in (0.0, 0.1):
        hidden = torch.randn(5, 8, dtype=dtype, requires_grad=True)
        weight = torch.randn(150, 8, dtype=dtype, requires_grad=True)
        given = (hidden, weight)
        loss = losses.linear_cross_entropy(hidden, weight, bias, labels, smoothing=smoothing)
        plain = F.cross_entropy(
            F.linear(hidden, weight).float() + bias, labels, reduction="sum",
            label_smoothing=smoothing,
        )
        pairs = zip(torch.autograd.grad(loss, given), torch.autograd.grad(plain, given))
        torch.testing.assert_close(loss, plain)
        for ours, theirs in pairs:
            atol = 1e-4 if dtype == torch.float32 else 6e-2
            torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=atol)
print("equal")
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")
def test_the_triton_kernel_gives_the_same_loss_in_the_interpreter() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FUSED],
        capture_output=True,
        text=True,
        env=os.environ | {"TRITON_INTERPRET": "1"},  # read when triton is imported
        timeout=120,
        check=False,
    )
    assert done.stdout == "equal\n", done.stderr
