"""One batch being decoded: its caches, and the step that adds a token to every row.

Keys and values of the source are projected once per article; the beams of an article are queries of
the same keys and values, never copies.

Keys and values of the target are written once and never moved: step t fills the slots
t * K … t * K + K - 1 of its article, and every beam remembers which slot of each step belongs to
its history (`ancestors`). Beams that change places change ancestors, not caches.
"""

# Legend: A articles, K beams, R = A * K rows, S source, T steps so far, L longest target, H heads,
# E head width, D model, V vocabulary.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bart_cli.inference.engine import Engine, Layer


@dataclass
class LayerCache:
    """Keys and values of one decoder block."""

    own_keys: Tensor  # [A, H, L * K, E]
    own_values: Tensor
    source_keys: Tensor  # [A, H, S, E]
    source_values: Tensor


class Decoding:
    """Decodes rows R = articles x beams step by step.

    Args:
        memory_ASD: output of the encoder.
        mask_AS: bool, True at real tokens; None: all.
        beams: rows per article.
        max_length: target tokens at most.
    """

    def __init__(
        self,
        engine: Engine,
        memory_ASD: Tensor,
        mask_AS: Tensor | None,
        beams: int,
        max_length: int,
    ) -> None:
        self._engine = engine
        self._beams = beams
        self._length = 0
        articles = memory_ASD.shape[0]
        self._mask = None if mask_AS is None else _bias(mask_AS[:, None, None], memory_ASD.dtype)
        self._slots = torch.arange(beams, device=memory_ASD.device)
        self._ancestors = self._slots[None, :, None].repeat(articles, 1, max_length)  # [A, K, L]
        width = engine.config.d_model
        self._caches = []
        for layer in engine.layers:
            room = (articles, layer.heads, max_length * beams, width // layer.heads)
            self._caches.append(
                LayerCache(
                    own_keys=memory_ASD.new_empty(room),
                    own_values=memory_ASD.new_empty(room),
                    source_keys=_heads(layer.cross_k(memory_ASD), layer.heads).contiguous(),
                    source_values=_heads(layer.cross_v(memory_ASD), layer.heads).contiguous(),
                )
            )

    def step(self, tokens_R: Tensor) -> Tensor:
        """Logits [R, V] after one more token per row."""
        engine = self._engine
        x = engine.embed(tokens_R, self._length)
        history = self._history()
        for layer, cache in zip(engine.layers, self._caches, strict=True):
            x = self._block(layer, cache, history, x)
        if engine.last_norm is not None:
            x = engine.last_norm(x)
        self._length += 1
        return engine.output(x)

    def reorder(self, origins_AK: Tensor) -> None:
        """Beam k of an article goes on with the history of beam `origins_AK[:, k]`."""
        index = origins_AK[:, :, None].expand(-1, -1, self._length)
        self._ancestors[:, :, : self._length] = self._ancestors.gather(1, index)

    def keep(self, articles: Tensor) -> None:
        """Only these articles stay: indices [A']."""
        if self._mask is not None:
            self._mask = self._mask[articles]
        self._ancestors = self._ancestors[articles]
        for cache in self._caches:
            cache.own_keys = cache.own_keys[articles]
            cache.own_values = cache.own_values[articles]
            cache.source_keys = cache.source_keys[articles]
            cache.source_values = cache.source_values[articles]

    def _history(self) -> Tensor | None:
        """What each beam adds to its scores over all slots [A, 1, K, T * K]; None: it sees all."""
        if self._beams == 1:
            return None
        ancestors = self._ancestors[:, :, : self._length + 1, None]
        seen = (ancestors == self._slots).flatten(2)
        return _bias(seen[:, None], self._engine.memory_dtype)

    def _block(
        self, layer: Layer, cache: LayerCache, history: Tensor | None, x_RD: Tensor
    ) -> Tensor:
        x_RD = self._residual(
            x_RD, layer.self_norm, lambda x: self._attend_own(layer, cache, history, x)
        )
        x_RD = self._residual(
            x_RD, layer.cross_norm, lambda x: self._attend_source(layer, cache, x)
        )
        return self._residual(
            x_RD, layer.final_norm, lambda x: layer.fc2(layer.activation(layer.fc1(x)))
        )

    def _residual(
        self, x: Tensor, norm: nn.LayerNorm, branch: Callable[[Tensor], Tensor]
    ) -> Tensor:
        if self._engine.pre_norm:
            return x + branch(norm(x))
        normed: Tensor = norm(x + branch(x))
        return normed

    def _attend_own(
        self, layer: Layer, cache: LayerCache, history: Tensor | None, x_RD: Tensor
    ) -> Tensor:
        q, k, v = (
            self._queries(part, layer.heads) for part in layer.self_qkv(x_RD).chunk(3, dim=-1)
        )
        first, end = self._length * self._beams, (self._length + 1) * self._beams
        cache.own_keys[:, :, first:end] = k
        cache.own_values[:, :, first:end] = v
        attended = F.scaled_dot_product_attention(
            q, cache.own_keys[:, :, :end], cache.own_values[:, :, :end], history
        )
        return layer.self_out(_rows(attended, x_RD))

    def _attend_source(self, layer: Layer, cache: LayerCache, x_RD: Tensor) -> Tensor:
        attended = F.scaled_dot_product_attention(
            self._queries(layer.cross_q(x_RD), layer.heads),
            cache.source_keys,
            cache.source_values,
            self._mask,
        )
        return layer.cross_out(_rows(attended, x_RD))

    def _queries(self, x_RD: Tensor, heads: int) -> Tensor:
        """[R, D] -> [A, H, K, E]: the beams of an article stand where positions do in training."""
        x_AKD = x_RD.unflatten(0, (-1, self._beams))
        return _heads(x_AKD.to(self._engine.memory_dtype), heads)


def _heads(x_ATD: Tensor, heads: int) -> Tensor:
    """[A, T, D] -> [A, H, T, E], a view."""
    return x_ATD.unflatten(-1, (heads, -1)).transpose(1, 2)


def _rows(x_AHKE: Tensor, like_RD: Tensor) -> Tensor:
    """[A, H, K, E] -> [R, D] in the dtype of `like_RD`."""
    return x_AHKE.transpose(1, 2).reshape(like_RD.shape).to(like_RD.dtype)


def _bias(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where a bool mask is True, -inf where it is not."""
    bias = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    return bias.masked_fill_(~allowed, float("-inf"))
