"""Cross-entropy over a large vocabulary that never holds all logits in memory.

In: hidden states and labels. Out: the summed loss; the caller divides by the number of tokens.
"""

# Legend: N positions (batch x target), D model, V vocabulary.

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bart_cli.data.batch import IGNORE
from bart_cli.runtime.precision import as_computed

CHUNK_LOGITS = 2**26  # logits in memory at a time, in the compute dtype: 128 MB in bf16
BLOCK_LOGITS = {"cpu": 2**20}  # converted to fp32 at a time to fit a cache; default: whole chunk


class _LinearCrossEntropy(torch.autograd.Function):
    """Compute loss and gradients chunk by chunk in the forward pass, without storing logits.

    The gradient of the loss with respect to the logits is softmax - target, where target is the
    smoothed one-hot vector. It overwrites the logits of its chunk and yields the gradients of
    `hidden` and `weight` at once, so backward only scales these.
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
        # In place is safe: nobody else refers to them, and torch rejects a second backward.
        if grad_hidden is not None:
            grad_hidden.mul_(scale)
        if grad_weight is not None:
            grad_weight = grad_weight.mul_(scale).to(ctx.weight_dtype)
        return grad_hidden, grad_weight, None, None, None


@functools.cache
def fused_kernel(device: torch.device) -> Callable[[Tensor, Tensor, Tensor, float], Tensor] | None:
    """Return the Triton kernel of the loss; warn and return None if it does not build here."""
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
    """Compute the summed loss of logits [n, V] and its gradient [n, V], both in fp32."""
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
    """Sum the negative log-likelihood over all real tokens, a scalar in fp32.

    Args:
        hidden: [..., D] hidden states.
        weight: [V, D] output embedding.
        bias: [V] or [1, V].
        labels: [...] int64; positions with IGNORE contribute no loss.
        smoothing: share of probability spread evenly over the vocabulary (Szegedy et al. 2016).
    """
    # The last LayerNorm returns fp32 under autocast; the large matrix product needs the fast dtype.
    flat = as_computed(hidden).reshape(-1, hidden.shape[-1])
    bias = bias.reshape(1, -1).float()
    return _LinearCrossEntropy.apply(flat, weight, bias, labels.reshape(-1), smoothing)
