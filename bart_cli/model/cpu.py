"""Dropout, and attention for bf16 training, where PyTorch's own are slow on a CPU."""

# Legend: B batch, T queries, S keys, H heads, E head width, N = B * H.

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

LEVELS = 2**16  # resolution of a dropout probability: 16 random bits per element
BLOCK = 2**21  # attention weights recomputed at a time: 4 MB in bf16, about the size of a cache


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Zero elements with probability `p` (Srivastava et al. 2014), scale others by 1 / (1 - p).

    On a CPU, torch draws one Bernoulli number per element, serially. Here one 64-bit random number
    serves four elements, and `p` is rounded to a multiple of 1/65536.
    """
    if not training or p == 0.0 or x.device.type != "cpu":
        return F.dropout(x, p, training)
    dropped = round(p * LEVELS)
    numbers = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    bits = numbers.view(torch.int16)[: x.numel()].view(x.shape)
    kept = (bits >= dropped - LEVELS // 2).to(x.dtype)
    return x * kept.mul_(LEVELS / max(1, LEVELS - dropped))


def attend(
    q_BHTE: Tensor, k_BHSE: Tensor, v_BHSE: Tensor, mask: Tensor | None, causal: bool, p: float
) -> Tensor:
    """Compute `scaled_dot_product_attention` of bf16 tensors with a faster backward pass.

    The mask, bool [B, 1, 1, S], is True at real tokens; None: no padding. It cannot be combined
    with `causal`, which lets query t attend only to keys <= t. Weights have dropout p.
    """
    if p > 0:
        scores_BHTS = (q_BHTE * q_BHTE.shape[-1] ** -0.5) @ k_BHSE.mT
        scores_BHTS = scores_BHTS + _bias(q_BHTE, k_BHSE, mask, causal)
        return dropout(scores_BHTS.softmax(-1).to(v_BHSE.dtype), p, True) @ v_BHSE
    return _Recomputed.apply(q_BHTE, k_BHSE, v_BHSE, mask, causal)


class _Recomputed(torch.autograd.Function):
    """Fused forward without stored attention weights; backward recomputes them, some heads at once.

    Backward rounds like plain attention under autocast: scores, weights and their gradients are
    bf16, sums are accumulated in fp32.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool
    ) -> Tensor:
        ctx.save_for_backward(q, k, v, mask)
        ctx.causal = causal
        return F.scaled_dot_product_attention(q, k, v, mask, 0.0, causal)

    @staticmethod
    def backward(ctx: Any, grad_BHTE: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        q, k, v, mask = ctx.saved_tensors
        scale = q.shape[-1] ** -0.5
        bias = _bias(q, k, mask, ctx.causal)
        bias_NTS = bias[0] if len(bias) == 1 else bias.expand(*q.shape[:2], -1, -1).flatten(0, 1)
        q_NTE, k_NSE, v_NSE, grad_NTE = (x.flatten(0, 1) for x in (q * scale, k, v, grad_BHTE))
        dq_NTE, dk_NSE, dv_NSE = (torch.empty_like(x) for x in (q_NTE, k_NSE, v_NSE))
        heads = max(1, BLOCK // (q.shape[2] * k.shape[2]))
        for begin in range(0, len(q_NTE), heads):
            n = slice(begin, begin + heads)
            bias_nTS = bias_NTS[n] if len(bias_NTS) > 1 else bias_NTS
            scores = torch.baddbmm(bias_nTS, q_NTE[n], k_NSE[n].mT)
            weights = torch.softmax(scores, -1)
            d_weights = torch.bmm(grad_NTE[n], v_NSE[n].mT)
            d_scores = torch._softmax_backward_data(d_weights, weights, -1, q.dtype)
            torch.bmm(weights.mT, grad_NTE[n], out=dv_NSE[n])
            torch.bmm(d_scores, k_NSE[n], out=dq_NTE[n])
            torch.bmm(d_scores.mT, q_NTE[n], out=dk_NSE[n])
        dq_NTE.mul_(scale)
        return dq_NTE.view(q.shape), dk_NSE.view(k.shape), dv_NSE.view(v.shape), None, None


def _bias(q: Tensor, k: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """Build the mask to add to the scores, 0 or -inf: [B or 1, 1, T or 1, S]."""
    if causal:
        mask = torch.ones(1, 1, q.shape[2], k.shape[2], dtype=torch.bool).tril_()
    if mask is None:
        return q.new_zeros(1, 1, 1, k.shape[2])
    return torch.zeros(mask.shape, dtype=q.dtype).masked_fill_(~mask, -math.inf)
