"""Cross-entropy over a large vocabulary without ever holding all logits.

In: hidden states and labels. Out: the summed loss; the caller divides by the number of tokens.
"""

# Legend: N positions (batch x target), D model, V vocabulary.

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bart_cli.data.batch import IGNORE
from bart_cli.runtime.precision import as_computed

CHUNK_LOGITS = 2**26  # alive at once, in the dtype of the computation: 128 MB in bf16
BLOCK_LOGITS = {"cpu": 2**20}  # of them in fp32: what a cache holds; elsewhere the whole chunk


class _LinearCrossEntropy(torch.autograd.Function):
    """Loss and gradients chunk by chunk, in forward: the logits of a chunk are never kept.

    The gradient of the loss by the logits is softmax - target (target: smoothed one-hot). It
    replaces the chunk's logits, so forward computes both gradients and backward only scales them.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, smoothing: float
    ) -> Tensor:
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        vocabulary = weight.shape[0]
        matrix = weight.to(hidden.dtype)
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        grad_weight: Tensor | None = None
        total = hidden.new_zeros((), dtype=torch.float32)
        rows = max(1, CHUNK_LOGITS // vocabulary)
        fused = fused_kernel(hidden.device) if hidden.is_cuda else None
        block = max(1, BLOCK_LOGITS.get(hidden.device.type, CHUNK_LOGITS) // vocabulary)
        for begin in range(0, hidden.shape[0], rows):
            part = hidden[begin : begin + rows]
            label = labels[begin : begin + rows]
            logits = part @ matrix.t()
            if fused is not None:
                total += fused(logits, bias[0], label, smoothing)
            for first in range(0, part.shape[0] if fused is None else 0, block):
                inside = slice(first, first + block)
                loss, gradient = _loss_and_gradient(logits[inside], bias, label[inside], smoothing)
                total += loss
                logits[inside] = gradient
            if grad_hidden is not None:
                torch.mm(logits, matrix, out=grad_hidden[begin : begin + rows])
            if needs_weight:
                product = logits.t() @ part
                if grad_weight is None:
                    grad_weight = product.float()
                else:
                    grad_weight += product
        if needs_weight and grad_weight is None:
            grad_weight = torch.zeros_like(weight, dtype=torch.float32)
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.weight_dtype = weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (scale,) = grad_outputs
        grad_hidden, grad_weight = ctx.saved_tensors
        # In place: they are ours alone, and torch refuses a second backward through them.
        if grad_hidden is not None:
            grad_hidden.mul_(scale)
        if grad_weight is not None:
            grad_weight = grad_weight.mul_(scale).to(ctx.weight_dtype)
        return grad_hidden, grad_weight, None, None, None


@functools.cache
def fused_kernel(device: torch.device) -> Callable[[Tensor, Tensor, Tensor, float], Tensor] | None:
    """The Triton kernel of the loss on this GPU; None, with a warning, where it does not build."""
    try:
        from bart_cli.model.fused_loss import fused_loss

        labels = torch.zeros(1, dtype=torch.int64, device=device)
        fused_loss(torch.zeros(1, 8, device=device), torch.zeros(8, device=device), labels, 0.0)
    except Exception as error:  # Triton: its package, a C compiler or the driver may be missing
        first = str(error).strip().partition("\n")[0]
        warnings.warn(f"the loss runs without its Triton kernel: {first}", stacklevel=2)
        return None
    return fused_loss


def _loss_and_gradient(
    logits: Tensor, bias: Tensor, labels: Tensor, smoothing: float
) -> tuple[Tensor, Tensor]:
    """Summed loss of a block of logits [n, V], and its gradient by them, both in fp32."""
    x = logits.float()
    x = x + bias if x is logits else x.add_(bias)
    real = (labels != IGNORE)[:, None].float()
    index = labels.clamp(min=0)[:, None]
    chosen = x.gather(-1, index)
    mean = x.mean(-1, keepdim=True) if smoothing else 0.0
    highest = x.amax(-1, keepdim=True)
    x.sub_(highest).exp_()
    total = x.sum(-1, keepdim=True)
    log_sum = total.log() + highest
    loss = (log_sum - (1 - smoothing) * chosen - smoothing * mean) * real
    x.mul_(real / total)
    if smoothing:
        x.sub_(real * (smoothing / x.shape[-1]))
    x.scatter_add_(-1, index, real * (smoothing - 1.0))
    return loss.sum(), x


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, *, smoothing: float = 0.0
) -> Tensor:
    """Sum over real tokens of the (label-smoothed) negative log-likelihood, in fp32, a scalar.

    Args:
        hidden: [..., D] in the dtype of the computation.
        weight: [V, D] output embedding. bias: [V] or [1, V].
        labels: [...] int64; IGNORE has no loss.
        smoothing: share of probability spread evenly over the vocabulary (Szegedy et al. 2016).
    """
    # The last LayerNorm leaves fp32 behind; the vocabulary's matrix product is where it counts.
    flat = as_computed(hidden).reshape(-1, hidden.shape[-1])
    loss: Tensor = _LinearCrossEntropy.apply(
        flat, weight, bias.reshape(1, -1).float(), labels.reshape(-1), smoothing
    )
    return loss
