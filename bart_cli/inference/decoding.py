"""Decoding state of one batch: key/value caches and the step that adds a token to every row.

Keys and values of the source are projected once per article and shared by all its beams.

Keys and values of the target are written once and never moved. Step t fills slots t * K to
t * K + K - 1 of its article, and each beam records its slot at every step (`ancestors`). When
beams are reordered, only the ancestors change, never the caches.

Example with K = 2 beams, after two steps:

    slots written:    step 0: slot 0 (beam 0), slot 1 (beam 1)
                      step 1: slot 2 (beam 0), slot 3 (beam 1)
    ancestors:        beam 0: [0, 0]   beam 1: [1, 1]     attends to slots 0, 2 and 1, 3

If both new beams extend beam 1, `reorder([[1, 1]])` copies its ancestors to beam 0. Step 2 then
fills slots 4 (beam 0) and 5 (beam 1):

    ancestors:        beam 0: [1, 1, 0]   beam 1: [1, 1, 1]
    attends to slots  beam 0: 1, 3, 4     beam 1: 1, 3, 5

Slots 0 and 2 stay in the cache, masked for both beams.

On a CPU, a step attends only to the filled slots. On a GPU it attends to all slots and masks the
empty ones, so its shapes never change: it is captured once as a CUDA graph and then replayed with
a single launch instead of hundreds.
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
    source_keys: Tensor  # [A, H, E, S]: transposed for the product with queries
    source_values: Tensor  # [A, H, S, E]


class Decoding:
    """Decode R = articles x beams rows step by step.

    Args:
        memory_ASD: output of the encoder.
        mask_AS: bool, True at real tokens; None: all.
        beams: rows per article.
        max_length: maximum number of target tokens.
    """

    def __init__(
        self,
        engine: Engine,
        memory_ASD: Tensor,
        mask_AS: Tensor | None,
        beams: int,
        max_length: int,
    ) -> None:
        device = memory_ASD.device
        self._engine = engine
        self._beams = beams
        self._length = 0  # steps so far; a CUDA graph reads the same number from `_position`
        self._position = torch.zeros(1, dtype=torch.int64, device=device)
        self._graph: Graph | None = None
        articles = memory_ASD.shape[0]
        self._mask = None if mask_AS is None else _bias(mask_AS[:, None, None], memory_ASD.dtype)
        self._slots = torch.arange(beams, device=device)
        self._steps = torch.arange(max_length, device=device)
        self._ancestors = self._slots[None, :, None].repeat(articles, 1, max_length)  # [A, K, L]
        width = engine.config.d_model
        self._caches = []
        for layer in engine.layers:
            room = (articles, layer.heads, max_length * beams, width // layer.heads)
            self._caches.append(
                LayerCache(
                    own_keys=memory_ASD.new_zeros(room),
                    own_values=memory_ASD.new_zeros(room),
                    source_keys=_heads(layer.cross_k(memory_ASD), layer.heads).mT.contiguous(),
                    source_values=_heads(layer.cross_v(memory_ASD), layer.heads).contiguous(),
                )
            )

    def step(self, tokens_R: Tensor) -> Tensor:
        """Add a token to each row; return logits [R, V]. On a GPU the next step overwrites them."""
        if self._engine.static and tokens_R.is_cuda:
            if self._graph is None:
                self._graph = Graph(self._step, tokens_R, self._position)
            logits = self._graph.replay(tokens_R)
        else:
            logits = self._step(tokens_R)
        self._length += 1
        return logits

    def _step(self, tokens_R: Tensor) -> Tensor:
        engine = self._engine
        x = engine.embed(tokens_R, self._position)
        history = self._history()
        for layer, cache in zip(engine.layers, self._caches, strict=True):
            x = self._block(layer, cache, history, x)
        if engine.last_norm is not None:
            x = engine.last_norm(x)
        self._position += 1
        return engine.output(x)

    def reorder(self, origins_AK: Tensor) -> None:
        """Give beam k of each article the history of beam `origins_AK[:, k]`."""
        index = origins_AK[:, :, None].expand(-1, -1, self._length)
        self._ancestors[:, :, : self._length] = self._ancestors.gather(1, index)

    def keep(self, articles: Tensor) -> None:
        """Keep only these articles, indices [A']."""
        self._graph = None  # it refers to tensors that are replaced below
        if self._mask is not None:
            self._mask = self._mask[articles]
        self._ancestors = self._ancestors[articles]
        for cache in self._caches:
            cache.own_keys = cache.own_keys[articles]
            cache.own_values = cache.own_values[articles]
            cache.source_keys = cache.source_keys[articles]
            cache.source_values = cache.source_values[articles]

    def _history(self) -> Tensor | None:
        """Attention bias of each beam over the slots, [A, 1, K, T * K]; None: no masking."""
        if self._beams == 1 and not self._engine.static:
            return None
        steps = self._steps_seen()
        seen = self._ancestors[:, :, :steps, None] == self._slots
        if self._engine.static:
            seen &= (self._steps <= self._position)[:, None]
        return _bias(seen.flatten(2)[:, None], self._engine.memory_dtype)

    def _steps_seen(self) -> int:
        return self._ancestors.shape[2] if self._engine.static else self._length + 1

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
        end = self._steps_seen() * self._beams
        if self._engine.static:
            here = self._position * self._beams + self._slots
            cache.own_keys.index_copy_(2, here, k)
            cache.own_values.index_copy_(2, here, v)
        else:
            cache.own_keys[:, :, end - self._beams : end] = k
            cache.own_values[:, :, end - self._beams : end] = v
        attended = F.scaled_dot_product_attention(
            q, cache.own_keys[:, :, :end], cache.own_values[:, :, :end], history
        )
        return layer.self_out(_rows(attended, x_RD))

    def _attend_source(self, layer: Layer, cache: LayerCache, x_RD: Tensor) -> Tensor:
        """Attend in three operations: for few queries they are faster than torch's fused kernel."""
        q = self._queries(layer.cross_q(x_RD), layer.heads)
        scores = (q * q.shape[-1] ** -0.5) @ cache.source_keys
        if self._mask is not None:
            scores += self._mask
        attended = scores.softmax(-1) @ cache.source_values
        return layer.cross_out(_rows(attended, x_RD))

    def _queries(self, x_RD: Tensor, heads: int) -> Tensor:
        """[R, D] -> [A, H, K, E]: beams take the place that positions have in training."""
        x_AKD = x_RD.unflatten(0, (-1, self._beams))
        return _heads(x_AKD.to(self._engine.memory_dtype), heads)


class Graph:
    """A decoding step captured as a CUDA graph; inputs and outputs keep their memory addresses."""

    def __init__(
        self, step: Callable[[Tensor], Tensor], tokens_R: Tensor, position: Tensor
    ) -> None:
        self._tokens = tokens_R.clone()
        before = position.clone()
        # By default torch captures on the device of its first capture. On another device it would
        # capture nothing, and every replay would return the same logits.
        with torch.cuda.device(tokens_R.device):
            self._capture(step, position, before)

    def _capture(self, step: Callable[[Tensor], Tensor], position: Tensor, before: Tensor) -> None:
        # Kernels allocate workspaces in a warm-up run; the replay overwrites its results.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            step(self._tokens)
            position.copy_(before)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=side):
            self._logits = step(self._tokens)

    def replay(self, tokens_R: Tensor) -> Tensor:
        """Replay the step with these tokens; return logits [R, V]."""
        self._tokens.copy_(tokens_R)
        self._graph.replay()
        return self._logits


def _heads(x_ATD: Tensor, heads: int) -> Tensor:
    """[A, T, D] -> [A, H, T, E], a view."""
    return x_ATD.unflatten(-1, (heads, -1)).transpose(1, 2)


def _rows(x_AHKE: Tensor, like_RD: Tensor) -> Tensor:
    """[A, H, K, E] -> [R, D] in the dtype of `like_RD`."""
    return x_AHKE.transpose(1, 2).reshape(like_RD.shape).to(like_RD.dtype)


def _bias(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert a bool mask to a bias: 0 where True, -inf where False."""
    bias = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    return bias.masked_fill_(~allowed, float("-inf"))
