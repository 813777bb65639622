"""The cached decoder: one token per step, all that was computed before is kept.

Keys and values of the source are projected once per article; the beams of an article are queries of
the same keys and values, never copies. Room for the target's own keys and values is taken once.
"""

# Legend: A articles, K beams, R = A * K rows, S source, T target, H heads, E head width, D model.

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from bart_cli.model.attention import Attention
from bart_cli.model.bart import Bart, key_mask
from bart_cli.model.layers import DecoderLayer


@dataclass
class LayerCache:
    """Keys and values of one decoder block."""

    self_keys: Tensor  # [R, H, T max, E]
    self_values: Tensor
    source_keys: Tensor  # [A, H, S, E]
    source_values: Tensor


class CachedDecoder:
    """Decodes rows R = articles x beams step by step.

    Args:
        model: in evaluation mode.
        memory_ASD: output of the encoder.
        source_mask_AS: True at real tokens.
        beams: rows per article.
        max_length: target tokens at most.
    """

    def __init__(
        self, model: Bart, memory_ASD: Tensor, source_mask_AS: Tensor, beams: int, max_length: int
    ) -> None:
        self._model = model
        self._mask = key_mask(source_mask_AS)
        self._beams = beams
        self._length = 0
        rows = memory_ASD.shape[0] * beams
        self._layers = []
        for layer in model.model.decoder.layers:
            assert isinstance(layer, DecoderLayer)
            cross, own = layer.encoder_attn, layer.self_attn
            room = (rows, own.heads, max_length, model.config.d_model // own.heads)
            self._layers.append(
                LayerCache(
                    self_keys=memory_ASD.new_empty(room),
                    self_values=memory_ASD.new_empty(room),
                    source_keys=cross.split(cross.k_proj(memory_ASD)).contiguous(),
                    source_values=cross.split(cross.v_proj(memory_ASD)).contiguous(),
                )
            )

    def step(self, tokens_R: Tensor) -> Tensor:
        """Logits [R, V] after one more token per row."""
        decoder = self._model.model.decoder
        x = decoder.embed(self._model.model.shared(tokens_R[:, None]), start=self._length)
        for layer, cache in zip(decoder.layers, self._layers, strict=True):
            assert isinstance(layer, DecoderLayer)
            x = self._block(layer, cache, x)
        if decoder.layer_norm is not None:
            x = decoder.layer_norm(x)
        self._length += 1
        return self._model.logits(x[:, 0])

    def reorder(self, rows_R: Tensor) -> None:
        """Row r goes on with the history of row `rows_R[r]` (of the same article)."""
        used = self._length
        for cache in self._layers:
            for history in (cache.self_keys, cache.self_values):
                history[:, :, :used] = history[rows_R, :, :used]

    def keep(self, articles: Tensor) -> None:
        """Only these articles stay; `articles` are indices [A'], rows follow."""
        rows = keep_rows(articles, self._beams)
        if self._mask is not None:
            self._mask = self._mask[articles]
        for cache in self._layers:
            cache.self_keys = cache.self_keys[rows]
            cache.self_values = cache.self_values[rows]
            cache.source_keys = cache.source_keys[articles]
            cache.source_values = cache.source_values[articles]

    def _block(self, layer: DecoderLayer, cache: LayerCache, x_R1D: Tensor) -> Tensor:
        x_R1D = layer.residual(
            x_R1D,
            layer.self_attn_layer_norm,
            lambda x: self._attend_self(layer.self_attn, cache, x),
        )
        x_R1D = layer.residual(
            x_R1D,
            layer.encoder_attn_layer_norm,
            lambda x: self._attend_source(layer.encoder_attn, cache, x),
        )
        return layer.residual(x_R1D, layer.final_layer_norm, layer.feed_forward)

    def _attend_self(self, attention: Attention, cache: LayerCache, x_R1D: Tensor) -> Tensor:
        now = self._length
        cache.self_keys[:, :, now : now + 1] = attention.split(attention.k_proj(x_R1D))
        cache.self_values[:, :, now : now + 1] = attention.split(attention.v_proj(x_R1D))
        attended = F.scaled_dot_product_attention(
            attention.split(attention.q_proj(x_R1D)),
            cache.self_keys[:, :, : now + 1],
            cache.self_values[:, :, : now + 1],
        )
        return attention.out_proj(attended.transpose(1, 2).flatten(2))

    def _attend_source(self, attention: Attention, cache: LayerCache, x_R1D: Tensor) -> Tensor:
        """The beams of an article stand where target positions stand in training."""
        queries_AKD = attention.q_proj(x_R1D).view(-1, self._beams, x_R1D.shape[-1])
        attended = F.scaled_dot_product_attention(
            attention.split(queries_AKD), cache.source_keys, cache.source_values, self._mask
        )
        return attention.out_proj(attended.transpose(1, 2).reshape(x_R1D.shape))


def keep_rows(articles: Tensor, beams: int) -> Tensor:
    """Indices of the rows of some articles: [A'] -> [A' * K]."""
    offsets = torch.arange(beams, device=articles.device)
    return (articles[:, None] * beams + offsets).flatten()
