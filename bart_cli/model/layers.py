"""The blocks of BART's encoder and decoder, post-LN (the paper) or Pre-LN (Xiong et al. 2020).

In and out: the residual stream [B, T, D].
"""

# Legend: B batch, S source (of attention: keys), T target (queries), D model, H heads, E = D / H.

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bart_cli.config.model import ModelConfig
from bart_cli.model.cpu import attend, dropout
from bart_cli.runtime.precision import as_computed

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}


class Block(nn.Module):
    """Base class of encoder and decoder blocks: residual branches and the feed-forward network."""

    def __init__(self, config: ModelConfig, heads: int, ffn_dim: int) -> None:
        super().__init__()
        self.pre_norm = config.pre_layer_norm
        self.dropout = config.dropout
        self.activation_dropout = config.activation_dropout
        self.activation = ACTIVATIONS[config.activation_function]
        self.self_attn = Attention(config.d_model, heads, config.attention_dropout)
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.fc1 = nn.Linear(config.d_model, ffn_dim)
        self.fc2 = nn.Linear(ffn_dim, config.d_model)
        self.final_layer_norm = nn.LayerNorm(config.d_model)

    def residual(self, x: Tensor, norm: nn.LayerNorm, branch: Callable[[Tensor], Tensor]) -> Tensor:
        """Compute x + dropout(branch(x)), with the norm before the branch (Pre-LN) or last."""
        y = branch(norm(x) if self.pre_norm else x)
        x = x + dropout(y, self.dropout, self.training)
        return x if self.pre_norm else norm(x)

    def feed_forward(self, x: Tensor) -> Tensor:
        """Apply the two-layer network to each position: [B, T, D] -> [B, T, D]."""
        hidden = self.activation(self.fc1(x))
        return self.fc2(dropout(hidden, self.activation_dropout, self.training))


def clamp_fp16(x: Tensor) -> Tensor:
    """Keep fp16 activations finite, as transformers does after each encoder layer."""
    if x.dtype != torch.float16:
        return x
    limit = torch.finfo(torch.float16).max - 1000
    return x.clamp(-limit, limit)


class EncoderLayer(Block):
    """Self-attention, then feed-forward."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, config.encoder_attention_heads, config.encoder_ffn_dim)

    def forward(self, x_BSD: Tensor, mask: Tensor | None) -> Tensor:
        """Run the block; `mask` [B, 1, 1, S] is True at real tokens. None: no padding."""
        norm = self.self_attn_layer_norm
        x_BSD = self.residual(x_BSD, norm, lambda x: self.self_attn(x, mask=mask))
        return clamp_fp16(self.residual(x_BSD, self.final_layer_norm, self.feed_forward))


class DecoderLayer(Block):
    """Causal self-attention, attention to the encoder's output, then feed-forward."""

    def __init__(self, config: ModelConfig) -> None:
        heads = config.decoder_attention_heads
        super().__init__(config, heads, config.decoder_ffn_dim)
        self.encoder_attn = Attention(config.d_model, heads, config.attention_dropout)
        self.encoder_attn_layer_norm = nn.LayerNorm(config.d_model)

    def forward(self, x_BTD: Tensor, memory_BSD: Tensor, mask: Tensor | None) -> Tensor:
        """Run the block; `mask` [B, 1, 1, S] is True at real source tokens. None: no padding.

        Padding in the target needs no mask: it is to the right of every real token, where causal
        attention does not look.
        """
        norm, cross_norm = self.self_attn_layer_norm, self.encoder_attn_layer_norm
        x_BTD = self.residual(x_BTD, norm, lambda x: self.self_attn(x, causal=True))
        x_BTD = self.residual(
            x_BTD, cross_norm, lambda x: self.encoder_attn(x, memory_BSD, mask=mask)
        )
        return self.residual(x_BTD, self.final_layer_norm, self.feed_forward)


class PositionEmbedding(nn.Embedding):
    """Learned position embeddings; the first two rows of BART's table are never used."""

    OFFSET = 2

    def __init__(self, positions: int, d_model: int) -> None:
        super().__init__(positions + self.OFFSET, d_model)

    def forward(self, length: int) -> Tensor:  # type: ignore[override]
        """Return the embeddings [length, D] of positions 0 … length - 1."""
        ids = torch.arange(length, device=self.weight.device)
        return super().forward(ids + self.OFFSET)


def split_heads(x_BTD: Tensor, heads: int) -> Tensor:
    """Split the heads: [B, T, D] -> [B, H, T, E], as a view."""
    return x_BTD.unflatten(-1, (heads, -1)).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017) through PyTorch's fused kernel.

    The query, key, value and output projections have the names of Hugging Face's BART.
    """

    def __init__(self, d_model: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.k_proj = nn.Linear(d_model, d_model)
        self.v_proj = nn.Linear(d_model, d_model)
        self.q_proj = nn.Linear(d_model, d_model)
        self.out_proj = nn.Linear(d_model, d_model)

    def forward(
        self,
        x_BTD: Tensor,
        memory_BSD: Tensor | None = None,
        mask: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        """Attend to `memory_BSD`, or to `x_BTD` itself if it is None; return [B, T, D].

        The mask, bool [B, 1, 1, S], is True where queries may attend; None: everywhere. It cannot
        be combined with `causal`, which lets position t attend only to positions <= t.
        """
        x_BTD = as_computed(x_BTD)
        keys = x_BTD if memory_BSD is None else as_computed(memory_BSD)
        q, k, v = (
            split_heads(projection(x), self.heads)
            for projection, x in ((self.q_proj, x_BTD), (self.k_proj, keys), (self.v_proj, keys))
        )
        p = self.dropout if self.training else 0.0
        on_cpu = q.device.type == "cpu" and not torch.compiler.is_compiling()
        if on_cpu and q.dtype == torch.bfloat16 and q.requires_grad:
            attended = attend(q, k, v, mask, causal, p)
        else:
            attended = F.scaled_dot_product_attention(q, k, v, mask, p, causal)
        return self.out_proj(attended.transpose(1, 2).flatten(2))
