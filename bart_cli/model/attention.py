"""Multi-head attention (Vaswani et al. 2017) through PyTorch's fused kernel.

In: queries [B, T, D] and, for cross-attention, memory [B, S, D]. Out: [B, T, D].
"""

# Legend: B batch, T queries, S keys, D model, H heads, E = D / H.

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bart_cli.model.autocast import as_computed
from bart_cli.model.dropout import dropout

SHORT = 2**15  # queries x keys below which plain products train faster in bf16 on a CPU


class Attention(nn.Module):
    """Four projections with biases, named as in Hugging Face's BART."""

    def __init__(self, d_model: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.k_proj = nn.Linear(d_model, d_model)
        self.v_proj = nn.Linear(d_model, d_model)
        self.q_proj = nn.Linear(d_model, d_model)
        self.out_proj = nn.Linear(d_model, d_model)

    def split(self, x_BTD: Tensor) -> Tensor:
        """[B, T, D] -> [B, H, T, E] (a view)."""
        return x_BTD.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(
        self,
        x_BTD: Tensor,
        memory_BSD: Tensor | None = None,
        mask: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        """Attend to `memory_BSD`, or to `x_BTD` itself when there is none.

        Args:
            mask: bool, broadcastable to [B, H, T, S]; True where a query may look. None: all.
            causal: position t sees positions <= t only; excludes `mask`.
        """
        x_BTD = as_computed(x_BTD)
        keys = x_BTD if memory_BSD is None else as_computed(memory_BSD)
        q, k, v = (
            self.split(projection(x))
            for projection, x in ((self.q_proj, x_BTD), (self.k_proj, keys), (self.v_proj, keys))
        )
        p = self.dropout if self.training else 0.0
        if q.dtype == torch.bfloat16 and q.requires_grad and _short_on_cpu(q, k):
            attended = _attend(q, k, v, mask, causal, p)
        else:
            attended = F.scaled_dot_product_attention(q, k, v, mask, p, causal)
        return self.out_proj(attended.transpose(1, 2).flatten(2))


def _short_on_cpu(q_BHTE: Tensor, k_BHSE: Tensor) -> bool:
    return q_BHTE.device.type == "cpu" and q_BHTE.shape[2] * k_BHSE.shape[2] <= SHORT


def _attend(
    q_BHTE: Tensor, k_BHSE: Tensor, v_BHSE: Tensor, mask: Tensor | None, causal: bool, p: float
) -> Tensor:
    """Attention in three steps, with all weights [B, H, T, S] at once; arguments as SDPA's."""
    scores = (q_BHTE * q_BHTE.shape[-1] ** -0.5) @ k_BHSE.transpose(-1, -2)
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, -math.inf)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return dropout(scores.softmax(-1).to(v_BHSE.dtype), p, True) @ v_BHSE
