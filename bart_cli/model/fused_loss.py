"""Loss and gradient of a block of logits in one Triton kernel.

The kernel reads the logits twice and writes them once; the operators in `losses` read and write
them about eight times. Used on CUDA, where PyTorch comes with Triton.
"""

# Legend: N positions, V vocabulary.

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from bart_cli.data.batch import IGNORE

BLOCK, WARPS = 4096, 8  # BLOCK: columns that a program processes at a time


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
        # Read the label's logit now: the second loop overwrites it. The reductions of the first
        # loop act as barriers in between.
        chosen = tl.load(logits + label).to(tl.float32) + tl.load(bias + label)
        # Online softmax (Milakov and Gimelshein 2018): running maximum and sum of exponentials.
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
    """Compute the summed loss in fp32, and overwrite the logits with their gradient.

    Args:
        logits_NV: fp32, bf16 or fp16, with contiguous rows.
        bias_V: fp32, added to each row.
        labels_N: int64; positions with IGNORE contribute neither loss nor gradient.
        smoothing: share of probability spread evenly over the vocabulary.
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
