"""Cross-entropy over a large vocabulary without ever holding all logits.

In: hidden states and labels. Out: the summed loss; the caller divides by the number of tokens.
"""

# Legend: N positions (batch x target), D model, V vocabulary.

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bart_cli.data.batch import IGNORE

CHUNK_LOGITS = 2**24  # logits alive at once: 64 MB in fp32


class _LinearCrossEntropy(torch.autograd.Function):
    """Loss and gradients chunk by chunk, in forward: the logits of a chunk are never kept.

    The gradient of the loss by the logits is softmax - target (target: smoothed one-hot), so both
    gradients can be had while the chunk's logits are at hand; backward only scales them.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, smoothing: float
    ) -> Tensor:
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        vocabulary = weight.shape[0]
        matrix = weight.to(hidden.dtype)
        grad_hidden = torch.zeros_like(hidden) if needs_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_weight else None
        total = hidden.new_zeros((), dtype=torch.float32)
        rows = max(1, CHUNK_LOGITS // vocabulary)
        for begin in range(0, hidden.shape[0], rows):
            part = slice(begin, begin + rows)
            logits = (hidden[part] @ matrix.t()).float() + bias
            label = labels[part]
            real = label != IGNORE
            index = label.clamp(min=0)[:, None]
            scale = real[:, None].float()
            log_sum = logits.logsumexp(-1, keepdim=True)
            nll = log_sum - logits.gather(-1, index)
            if smoothing:
                uniform = log_sum - logits.mean(-1, keepdim=True)
                nll = (1 - smoothing) * nll + smoothing * uniform
            total += (nll * scale).sum()
            if not (needs_hidden or needs_weight):
                continue
            gradient = logits.sub_(log_sum).exp_()
            if smoothing:
                gradient -= smoothing / vocabulary
            gradient.scatter_add_(-1, index, gradient.new_full(index.shape, smoothing - 1.0))
            gradient = gradient.mul_(scale).to(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden[part] = gradient @ matrix
            if grad_weight is not None:
                grad_weight += gradient.t() @ hidden[part]
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.weight_dtype = weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (scale,) = grad_outputs
        grad_hidden, grad_weight = ctx.saved_tensors
        if grad_hidden is not None:
            grad_hidden = grad_hidden * scale.to(grad_hidden.dtype)
        if grad_weight is not None:
            grad_weight = (grad_weight * scale).to(ctx.weight_dtype)
        return grad_hidden, grad_weight, None, None, None


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
    if torch.is_autocast_enabled(hidden.device.type):
        # The last LayerNorm leaves fp32 behind; the vocabulary's matrix product is where it counts.
        hidden = hidden.to(torch.get_autocast_dtype(hidden.device.type))
    flat = hidden.reshape(-1, hidden.shape[-1])
    loss: Tensor = _LinearCrossEntropy.apply(
        flat, weight, bias.reshape(1, -1).float(), labels.reshape(-1), smoothing
    )
    return loss
