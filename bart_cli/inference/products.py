"""Matrix products with weights that were laid out once for this device.

In: a weight [N, D] and a bias [N]. Out: a function [..., D] -> [..., N]. On a CPU with oneDNN the
weights are packed for its kernels: a decoding step multiplies a few rows with every weight of the
decoder, so its time is that of reading them, and the ordinary kernels lay them out anew each time.
"""

# Legend: M rows, D inputs, N outputs.

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Product = Callable[[Tensor], Tensor]

LARGEST_INT8 = 127


def make_product(weight_ND: Tensor, bias_N: Tensor, *, int8: bool = False) -> Product:
    """The fastest product that this device has for a weight that will not change.

    Args:
        int8: quantize the weight by output, and the rows that come by row; results in fp32.
    """
    if int8:
        return Int8Product(weight_ND, bias_N)
    if weight_ND.device.type == "cpu" and weight_ND.dtype in PACKED_DTYPES and has_onednn():
        return PackedProduct(weight_ND, bias_N)
    return partial(F.linear, weight=weight_ND, bias=bias_N)


def fuse(layers: Sequence[nn.Linear]) -> tuple[Tensor, Tensor]:
    """Weight and bias of several layers with the same input as one: [sum of N, D], [sum of N]."""
    return torch.cat([layer.weight for layer in layers]), torch.cat(
        [layer.bias for layer in layers]
    )


def has_onednn() -> bool:
    """Whether this torch has oneDNN's packed products (x86 builds do)."""
    return torch.backends.mkldnn.is_available() and hasattr(
        torch.ops.mkldnn, "_reorder_linear_weight"
    )


PACKED_DTYPES = (torch.float32, torch.bfloat16)


class PackedProduct:
    """oneDNN's product with a packed weight, in the weight's dtype."""

    def __init__(self, weight_ND: Tensor, bias_N: Tensor) -> None:
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight_ND.detach().contiguous())
        self._bias = bias_N.detach().to(weight_ND.dtype).contiguous()

    def __call__(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., N]."""
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, "none", [], "")
        return y


class Int8Product:
    """Integers times integers: the weight with a scale per output, each row with one of its own.

    A row's scale depends on this row alone, so results do not depend on the batch.
    """

    def __init__(self, weight_ND: Tensor, bias_N: Tensor) -> None:
        weight = weight_ND.detach().float()
        scale_N = weight.abs().amax(1).clamp_(min=torch.finfo(torch.float32).tiny) / LARGEST_INT8
        integers = (weight / scale_N[:, None]).round_().to(torch.int8)
        self._packed = torch.ops.onednn.qlinear_prepack(integers, None)
        self._scale = scale_N
        self._zero = torch.zeros(len(scale_N), dtype=torch.int64)
        self._bias = bias_N.detach().float()

    def __call__(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., N] in fp32."""
        rows_MD = x.reshape(-1, x.shape[-1]).float()
        largest_M1 = rows_MD.abs().amax(1, keepdim=True).clamp_(min=1e-30)
        integers_MD = (rows_MD * (LARGEST_INT8 / largest_M1)).round_().to(torch.int8)
        y_MN: Tensor = torch.ops.onednn.qlinear_pointwise(
            integers_MD,
            1.0 / LARGEST_INT8,
            0,
            self._packed,
            self._scale,
            self._zero,
            None,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )
        return torch.addcmul(self._bias, y_MN, largest_M1).view(*x.shape[:-1], -1)
