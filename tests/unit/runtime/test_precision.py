"""bf16 training on a CPU without bf16 instructions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bart_cli.model.bart import Bart
from bart_cli.runtime import precision
from bart_cli.training.loop import forward_backward
from tests.conftest import tiny_model_config
from tests.unit.training.test_device_step import Skipping, make_job, random_batch

CPU = torch.device("cpu")


class Products(TorchDispatchMode):
    """Records the dtypes of the matrix products that reach torch's kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(name in str(func) for name in ("mm.", "bmm.", "addmm.", "mv.", "dot.")):
            self.dtypes.add(args[-1].dtype)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dropout", [0.0, 0.1], ids=["fused attention", "attention dropout"])
def test_products_are_computed_in_fp32_and_have_the_values_of_bf16(
    monkeypatch: pytest.MonkeyPatch, dropout: float
) -> None:
    if dropout:  # products in several blocks of rows
        monkeypatch.setattr(precision._RoundedProducts, "BLOCK", 100)
    torch.manual_seed(0)
    model = Bart(tiny_model_config(attention_dropout=dropout)).train()
    model.activation_checkpointing(dropout > 0)
    parameters = list(model.parameters())
    micro = [random_batch(padded=True)]

    def gradient(kind: str, *, native: bool) -> tuple[torch.Tensor, set[torch.dtype]]:
        monkeypatch.setattr(precision, "onednn_has_bf16", lambda: native)
        job = make_job(model, Skipping(parameters), precision=kind)
        with Products() as products:
            forward_backward(job, micro)
        return torch.cat([p.grad.flatten() for p in parameters]), products.dtypes  # type: ignore[union-attr]

    def error(found: torch.Tensor, expected: torch.Tensor) -> float:
        return ((found - expected).norm() / expected.norm()).item()

    exact, _ = gradient("fp32", native=False)
    bf16, kernels = gradient("bf16", native=True)
    rounded, ours = gradient("bf16", native=False)
    assert (kernels, ours) == ({torch.bfloat16}, {torch.float32})
    assert error(rounded, bf16) < 0.01
    assert error(rounded, exact) > 0.001
