"""Precision of forward and backward: fp32, tf32, bf16 or fp16."""

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bart_cli.config.training import Precision

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
# Values of ONEDNN_MAX_CPU_ISA, which limits the instruction set, that exclude bf16.
ISAS_WITHOUT_BF16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI")
EMULATED = (
    "this CPU has no bf16 instructions: matrix products run in fp32 and are rounded to bf16, which "
    "is slower than fp32. Pass --precision fp32 to train faster"
)


def onednn_has_bf16() -> bool:
    """Return whether oneDNN has fast bf16 kernels for this CPU (AVX-512, AVX-NE-CONVERT, AMX)."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    return (
        limit not in ISAS_WITHOUT_BF16
        and torch.backends.mkldnn.is_available()
        and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


def is_emulated(precision: str, device: torch.device) -> bool:
    """Return whether this device only emulates the precision; EMULATED is the warning about it."""
    return device.type == "cpu" and precision == "bf16" and not onednn_has_bf16()


def product_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the dtype in which matrix products are computed; emulated ones are rounded later."""
    emulated = is_emulated(precision, device)
    return torch.float32 if emulated else AUTOCAST.get(precision, torch.float32)


def problem_of(precision: Precision, device: torch.device) -> str | None:
    """Return the reason why this device does not support the precision, or None."""
    if device.type == "cpu" and precision in ("tf32", "fp16"):
        return f"training.precision={precision} needs an NVIDIA GPU; on this CPU use fp32 or bf16"
    if device.type == "cuda" and precision in ("tf32", "bf16"):
        major, minor = torch.cuda.get_device_capability(device)
        if major < 8:
            return (
                f"training.precision={precision} needs compute capability 8.0 (Ampere), but "
                f"this GPU has {major}.{minor}; use fp16 or fp32"
            )
    return None


def apply_matmul_precision(precision: Precision) -> None:
    """Choose the kernels of matrix products for the whole process.

    With tf32, fp32 products run in tf32. With bf16, oneDNN is disabled on a CPU for which it has
    only reference code: torch's own kernels are much faster.
    """
    if precision == "bf16" and not onednn_has_bf16():
        torch.backends.mkldnn.set_flags(False)
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Return the context manager for a forward pass in this precision."""
    if precision in AUTOCAST:
        return torch.autocast(device.type, AUTOCAST[precision])
    return nullcontext()


class _RoundedProducts(TorchDispatchMode):
    """Compute bf16 matrix products in fp32 and round the results, some rows at a time.

    These are the numerics of bf16 instructions, which accumulate in fp32. Without them, torch's
    kernel for the gradient of a layer's input takes up to 130 times as long as in fp32.
    """

    PRODUCTS = (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm, torch.ops.aten.baddbmm)
    BLOCK = 2**20  # numbers of an operand or result that are in fp32 at a time

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        settings = dict(kwargs or {})
        if func.overloadpacket not in self.PRODUCTS or args[-1].dtype != torch.bfloat16:
            return func(*args, **settings)
        *bias, left, right = args  # [M, K] and [K, N], or with a batch in front
        out = settings.pop("out", None)
        if out is None:  # allocated before the temporaries, to fragment the heap less
            out = left.new_empty(*left.shape[:-1], right.shape[-1])
        bias = [term.expand(out.shape) for term in bias]
        batched = left.ndim == 3
        right = right if batched else right.float()
        row = max(1, max(left.numel(), out.numel()) // max(1, len(out)))
        rows = max(1, self.BLOCK // row)
        for begin in range(0, len(out), rows):
            n = slice(begin, begin + rows)
            terms = (term[n].float() for term in bias)
            factors = (left[n].float(), right[n].float() if batched else right)
            out[n] = func.overloadpacket(*terms, *factors, **settings)
        return out


def fast_products(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Return the context manager for forward and backward that avoids slow bf16 kernels."""
    return _RoundedProducts() if is_emulated(precision, device) else nullcontext()


def make_scaler(precision: Precision, device: torch.device) -> torch.amp.GradScaler:
    """Make the gradient scaler, which is enabled only for fp16."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")


def as_computed(x: Tensor) -> Tensor:
    """Cast `x` to the dtype of autocast's matrix products; without autocast, return it unchanged.

    Casting once is faster: autocast would cast `x` again for every product that reads it.
    """
    kind = x.device.type
    computes = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return x.to(torch.get_autocast_dtype(kind)) if computes else x
