"""Multi-head attention (Vaswani et al. 2017) through PyTorch's fused kernel.

In: queries [B, T, D] and, for cross-attention, memory [B, S, D]. Out: [B, T, D].
"""

# Legend: B batch, T queries, S keys, D model, H heads, E = D / H.

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bart_cli.model import cpu_attention
from bart_cli.runtime.precision import as_computed


class Attention(nn.Module):
    """Query, key, value and output projections with biases; names as in Hugging Face's BART."""

    def __init__(self, d_model: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.k_proj = nn.Linear(d_model, d_model)
        self.v_proj = nn.Linear(d_model, d_model)
        self.q_proj = nn.Linear(d_model, d_model)
        self.out_proj = nn.Linear(d_model, d_model)

    def split(self, x_BTD: Tensor) -> Tensor:
        """Split the heads: [B, T, D] -> [B, H, T, E], as a view."""
        return x_BTD.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(
        self,
        x_BTD: Tensor,
        memory_BSD: Tensor | None = None,
        mask: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        """Attend to `memory_BSD`, or to `x_BTD` itself if it is None.

        Args:
            mask: bool, broadcastable to [B, H, T, S]; True where a query may attend. None: all.
            causal: let position t attend only to positions <= t. Cannot be combined with `mask`.
        """
        x_BTD = as_computed(x_BTD)
        keys = x_BTD if memory_BSD is None else as_computed(memory_BSD)
        q, k, v = (
            self.split(projection(x))
            for projection, x in ((self.q_proj, x_BTD), (self.k_proj, keys), (self.v_proj, keys))
        )
        p = self.dropout if self.training else 0.0
        on_cpu = q.device.type == "cpu" and not torch.compiler.is_compiling()
        if on_cpu and q.dtype == torch.bfloat16 and q.requires_grad:
            attended = cpu_attention.attend(q, k, v, mask, causal, p)
        else:
            attended = F.scaled_dot_product_attention(q, k, v, mask, p, causal)
        return self.out_proj(attended.transpose(1, 2).flatten(2))
