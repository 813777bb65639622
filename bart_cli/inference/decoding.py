"""Decoding state of a batch: key/value caches and the step that adds a token to every row.

Keys and values of the source are projected once per article and shared by all its beams.

Keys and values of the target are written once and never moved. A step fills one column of slots,
one slot per beam, and each beam records its slot in every column (`ancestors`). When beams are
reordered, only the ancestors change, never the caches.

Example with K = 2 beams, after two steps, in columns 0 and 1:

    slots written:    step 0: slot 0 (beam 0), slot 1 (beam 1)
                      step 1: slot 2 (beam 0), slot 3 (beam 1)
    ancestors:        beam 0: [0, 0]   beam 1: [1, 1]     attends to slots 0, 2 and 1, 3

If both new beams extend beam 1, `reorder([[1, 1]])` copies its ancestors to beam 0. Step 2 then
fills slots 4 (beam 0) and 5 (beam 1):

    ancestors:        beam 0: [1, 1, 0]   beam 1: [1, 1, 1]
    attends to slots  beam 0: 1, 3, 4     beam 1: 1, 3, 5

Slots 0 and 2 stay in the cache, masked for both beams.

Articles may join at any step, in the place of an article that has left or in a new one. Columns
written before an article joined are masked for it (ancestor -1). A step takes the first column that
was written before all articles joined, so L columns always suffice, however long the batch runs.

On a CPU, a step attends only to the columns in use. On a GPU it attends to all slots and masks the
empty ones, so its shapes never change: it is captured once as a CUDA graph and then replayed with
a single launch instead of hundreds. It is captured again when the number of places or the length of
the sources changes.
"""

# Legend: A places for articles, K beams, R = A * K rows, S source, T columns in use, L longest
# target, H heads, E head width, D model, V vocabulary, N articles that join.

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bart_cli.inference.engine import Engine, Layer
from bart_cli.model.layers import split_heads


@dataclass
class LayerCache:
    """Keys and values of one decoder block."""

    own_keys: Tensor  # [A, H, L * K, E]
    own_values: Tensor
    source_keys: Tensor  # [A, H, E, S]: transposed for the product with queries
    source_values: Tensor  # [A, H, S, E]


class Decoding:
    """Decode R = articles x beams rows step by step, up to `max_length` target tokens.

    Memory is the output of the encoder. Its mask is True at real tokens; None: at all.
    """

    def __init__(
        self,
        engine: Engine,
        memory_ASD: Tensor,
        mask_AS: Tensor | None,
        beams: int,
        max_length: int,
    ) -> None:
        self._engine, self._beams = engine, beams
        self._steps = 0
        self._columns = [-1] * max_length  # the last step that wrote each column
        self._starts: list[int | None] = []  # the step at which each article joined; None: it left
        self._widths: list[int] = []  # source length of each article
        self._end = 0  # columns from here on are empty
        self._graph: Graph | None = None
        new = memory_ASD.new_zeros
        integers = partial(new, dtype=torch.int64)
        self._slots = torch.arange(beams, device=memory_ASD.device)
        self._column = integers(1)
        self._here = integers(beams)  # slots of this step
        self._position = integers(0)  # [R]
        self._pace = integers(0)  # [R] 1 for rows of articles that have not left, else 0
        self._ancestors = integers(0, beams, max_length)  # [A, K, L]
        self._bias = new(0, 1, 1, 0)  # [A, 1, 1, S], 0 at real tokens, else -inf
        self._has_padding = False
        self._caches = []
        for layer in engine.layers:
            heads, width = layer.heads, engine.config.d_model // layer.heads
            self._caches.append(
                LayerCache(
                    own_keys=new(0, heads, max_length * beams, width),
                    own_values=new(0, heads, max_length * beams, width),
                    source_keys=new(0, heads, width, 0),
                    source_values=new(0, heads, 0, width),
                )
            )
        self.join(memory_ASD, mask_AS)

    def join(self, memory_NSD: Tensor, mask_NS: Tensor | None) -> list[int]:
        """Add articles, which start with the next step; return their places.

        S may differ from that of the other articles.
        """
        count, width = memory_NSD.shape[:2]
        left = [place for place, start in enumerate(self._starts) if start is None]
        places = [*left, *range(len(self._starts), len(self._starts) + count)][:count]
        self._resize(max(len(self._starts), places[-1] + 1), width)
        for place in places:
            self._starts[place], self._widths[place] = self._steps, width
        index = torch.tensor(places, device=memory_NSD.device)
        for rows, value in ((self._position, 0), (self._pace, 1)):
            rows.view(-1, self._beams)[index] = value
        self._ancestors[index] = -1
        real = None if mask_NS is None else _bias(mask_NS[:, None, None], memory_NSD.dtype)
        self._bias[index] = float("-inf")
        self._bias[index, ..., :width] = 0.0 if real is None else real
        padded = mask_NS is not None or min(self._present_widths()) < self._bias.shape[-1]
        if padded and not self._has_padding:
            self._has_padding, self._graph = True, None
        for layer, cache in zip(self._engine.layers, self._caches, strict=True):
            if left:  # masked, but 0 * NaN would be NaN
                for old in vars(cache).values():
                    old[index] = 0.0
            keys, values = layer.cross_k(memory_NSD), layer.cross_v(memory_NSD)
            cache.source_keys[index, ..., :width] = split_heads(keys, layer.heads).mT
            cache.source_values[index, :, :width] = split_heads(values, layer.heads)
        return places

    @property
    def places(self) -> int:
        """Number of places, with those of articles that have left."""
        return len(self._starts)

    def step(self, tokens_R: Tensor) -> Tensor:
        """Add a token to each row; return logits [R, V]. On a GPU the next step overwrites them."""
        oldest = min(start for start in self._starts if start is not None)
        column = next(c for c, step in enumerate(self._columns) if step < oldest)
        self._columns[column] = self._steps
        self._steps += 1
        self._end = 1 + max(c for c, step in enumerate(self._columns) if step >= oldest)
        self._column.fill_(column)
        if self._engine.static and tokens_R.is_cuda:
            if self._graph is None:
                self._graph = Graph(self._step, tokens_R, self._position)
            return self._graph.replay(tokens_R)
        return self._step(tokens_R)

    def _step(self, tokens_R: Tensor) -> Tensor:
        engine = self._engine
        x = engine.embed(tokens_R, self._position)
        own_slots = self._slots[:, None].expand(len(self._starts), -1, 1)
        self._ancestors.index_copy_(2, self._column, own_slots)
        self._here = self._column * self._beams + self._slots
        history = self._history()
        for layer, cache in zip(engine.layers, self._caches, strict=True):
            x = self._block(layer, cache, history, x)
        if engine.last_norm is not None:
            x = engine.last_norm(x)
        self._position += self._pace
        return engine.output(x)

    def reorder(self, origins_AK: Tensor) -> None:
        """Give beam k of each article the history of beam `origins_AK[:, k]`."""
        index = origins_AK[:, :, None].expand(-1, -1, self._end)
        self._ancestors[:, :, : self._end] = self._ancestors.gather(1, index)

    def drop(self, places: Collection[int]) -> None:
        """Let articles leave. Their rows are computed until `keep` removes them, or others join."""
        for place in places:
            self._starts[place] = None
            self._pace[place * self._beams : (place + 1) * self._beams] = 0

    def keep(self, places: list[int]) -> None:
        """Keep only these places, which are numbered anew in this order."""
        self._graph = None  # it refers to tensors that are replaced below
        self._starts = [self._starts[place] for place in places]
        self._widths = [self._widths[place] for place in places]
        index = torch.tensor(places, device=self._column.device)
        self._position, self._pace = (
            rows.view(-1, self._beams)[index].flatten() for rows in (self._position, self._pace)
        )
        self._bias, self._ancestors = self._bias[index], self._ancestors[index]
        for cache in self._caches:
            for name, old in vars(cache).items():
                setattr(cache, name, old[index])

    def _resize(self, places: int, width: int) -> None:
        """Make at least this many places, for sources as long as the longest and `width`."""
        more, wide = max(0, places - len(self._starts)), self._bias.shape[-1]
        width = max([width, *self._present_widths()])
        if wide / 2 <= width <= wide:  # copying pays only for much shorter sources
            width = wide
        if not more and width == wide:
            return
        self._graph = None
        self._starts += [None] * more
        self._widths += [0] * more
        places, rows = len(self._starts), len(self._starts) * self._beams
        self._position, self._pace = (_resized(x, rows) for x in (self._position, self._pace))
        self._ancestors = _resized(self._ancestors, places)
        self._bias = _resized(self._bias, places, 1, 1, width, fill=float("-inf"))
        for cache in self._caches:
            if more:
                full = cache.own_keys.shape[1:]
                used = slice(self._end * self._beams)
                cache.own_keys = _resized(cache.own_keys[:, :, used], places, *full)
                cache.own_values = _resized(cache.own_values[:, :, used], places, *full)
            heads, head = cache.source_keys.shape[1:3]
            cache.source_keys = _resized(cache.source_keys, places, heads, head, width)
            cache.source_values = _resized(cache.source_values, places, heads, width, head)

    def _present_widths(self) -> list[int]:
        """Return the source lengths of the articles that have not left."""
        places = zip(self._widths, self._starts, strict=True)
        return [width for width, start in places if start is not None]

    def _history(self) -> Tensor | None:
        """Attention bias of each beam over the slots, [A, 1, K, T * K]; None: no masking."""
        if self._beams == 1 and not self._engine.static and not any(self._starts):
            return None
        seen = self._ancestors[:, :, : self._columns_seen(), None] == self._slots
        return _bias(seen.flatten(2)[:, None], self._engine.memory_dtype)

    def _columns_seen(self) -> int:
        return len(self._columns) if self._engine.static else self._end

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
        return norm(x + branch(x))

    def _attend_own(
        self, layer: Layer, cache: LayerCache, history: Tensor | None, x_RD: Tensor
    ) -> Tensor:
        q, k, v = (
            self._queries(part, layer.heads) for part in layer.self_qkv(x_RD).chunk(3, dim=-1)
        )
        end = self._columns_seen() * self._beams
        cache.own_keys.index_copy_(2, self._here, k)
        cache.own_values.index_copy_(2, self._here, v)
        attended = F.scaled_dot_product_attention(
            q, cache.own_keys[:, :, :end], cache.own_values[:, :, :end], history
        )
        return layer.self_out(_rows(attended, x_RD))

    def _attend_source(self, layer: Layer, cache: LayerCache, x_RD: Tensor) -> Tensor:
        """Attend in three operations: for few queries they are faster than torch's fused kernel."""
        q = self._queries(layer.cross_q(x_RD), layer.heads)
        scores = (q * q.shape[-1] ** -0.5) @ cache.source_keys
        if self._has_padding:
            scores += self._bias
        attended = scores.softmax(-1) @ cache.source_values
        return layer.cross_out(_rows(attended, x_RD))

    def _queries(self, x_RD: Tensor, heads: int) -> Tensor:
        """[R, D] -> [A, H, K, E]: beams take the place that positions have in training."""
        x_AKD = x_RD.unflatten(0, (-1, self._beams))
        return split_heads(x_AKD.to(self._engine.memory_dtype), heads)


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


def _rows(x_AHKE: Tensor, like_RD: Tensor) -> Tensor:
    """[A, H, K, E] -> [R, D] in the dtype of `like_RD`."""
    return x_AHKE.transpose(1, 2).reshape(like_RD.shape).to(like_RD.dtype)


def _resized(x: Tensor, *shape: int, fill: float = 0.0) -> Tensor:
    """Copy to another shape; dimensions that are not given stay the same."""
    shape = (*shape, *x.shape[len(shape) :])
    new = x.new_full(shape, fill) if fill else x.new_zeros(shape)  # zeros are allocated lazily
    common = tuple(slice(min(pair)) for pair in zip(x.shape, new.shape, strict=True))
    new[common] = x[common]
    return new


def _bias(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert a bool mask to a bias: 0 where True, -inf where False."""
    bias = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    return bias.masked_fill_(~allowed, float("-inf"))
