"""Loss and gradient of a block of logits in one Triton kernel: two reads and one write of them.

The operators of `losses` read and write the logits about eight times. Used on CUDA, where PyTorch
brings Triton with it.
"""

# Legend: N positions, V vocabulary.

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from bart_cli.data.batch import IGNORE

BLOCK, WARPS = 4096, 8  # columns that a program holds at once


@triton.jit  # type: ignore[untyped-decorator, misc, unused-ignore]
def _kernel(  # type: ignore[no-untyped-def]
    logits, bias, labels, losses, stride, V, smoothing, IGNORE: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    logits += row * stride
    label = tl.load(labels + row)
    columns = tl.arange(0, BLOCK)
    if label == IGNORE:
        tl.store(losses + row, 0.0)
        for begin in range(0, V, BLOCK):
            at = begin + columns
            tl.store(logits + at, tl.zeros([BLOCK], tl.float32), mask=at < V)
    else:
        # Before the loop, whose reductions are barriers: the second one overwrites it.
        chosen = tl.load(logits + label).to(tl.float32) + tl.load(bias + label)
        # Running maximum and sum of exponentials (Milakov and Gimelshein 2018), and plain sum.
        highest = float("-inf")
        total = 0.0
        plain_sum = 0.0
        for begin in range(0, V, BLOCK):
            at = begin + columns
            inside = at < V
            x = tl.load(logits + at, mask=inside, other=0.0).to(tl.float32)
            x += tl.load(bias + at, mask=inside, other=0.0)
            plain_sum += tl.sum(x, 0)
            x = tl.where(inside, x, float("-inf"))
            higher = tl.maximum(highest, tl.max(x, 0))
            total = total * tl.exp(highest - higher) + tl.sum(tl.exp(x - higher), 0)
            highest = higher
        log_sum = tl.log(total) + highest
        loss = log_sum - (1 - smoothing) * chosen - smoothing * plain_sum / V
        tl.store(losses + row, loss)
        for begin in range(0, V, BLOCK):
            at = begin + columns
            inside = at < V
            x = tl.load(logits + at, mask=inside, other=0.0).to(tl.float32)
            x += tl.load(bias + at, mask=inside, other=0.0)
            gradient = tl.exp(x - log_sum) - smoothing / V
            gradient -= tl.where(at == label, 1 - smoothing, 0.0)
            tl.store(logits + at, gradient, mask=inside)


def fused_loss(logits_NV: Tensor, bias_V: Tensor, labels_N: Tensor, smoothing: float) -> Tensor:
    """Summed loss of the logits, in fp32; their gradient takes their place.

    Args:
        logits_NV: rows are contiguous.
        bias_V: fp32. labels_N: int64; IGNORE has neither loss nor gradient.
    """
    losses_N = bias_V.new_empty(len(logits_NV))
    _kernel[(len(logits_NV),)](
        logits_NV,
        bias_V,
        labels_N,
        losses_N,
        logits_NV.stride(0),
        logits_NV.shape[1],
        smoothing,
        IGNORE=IGNORE,
        BLOCK=BLOCK,
        num_warps=WARPS,
    )
    return losses_N.sum()
