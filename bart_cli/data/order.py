"""The order of pre-training samples: a pure function of seed, epoch and number of streams.

Each epoch shuffles the shards, and the rows of each shard. The resulting sequence is divided into
`streams` slices of (nearly) equal length, which are read round-robin: sample g of the epoch is
entry g // streams of slice g % streams. If the world size divides `streams`, each rank reads only
its own slices and needs few shards at a time, although the order does not depend on ranks.

Example: shard 0 has the samples a b c, shard 1 has d e f g, and there are 3 streams. Say the shards
are shuffled to 1, 0, and their rows to e g d f and c a b. The sequence e g d f c a b is divided
into the slices e g d, f c and a b. Reading them round-robin gives the order e f a g c b d.
With 3 ranks and a global batch of 3, rank 0 gets e g d, rank 1 gets f c and rank 2 gets a b.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from bart_cli.data.denoising import Ids
from bart_cli.data.random_keys import Purpose, permutation
from bart_cli.errors import UsageError


@dataclass(frozen=True)
class Share:
    """The part of each global batch that a loader yields, and the sample at which it starts."""

    global_batch: int
    micro_batch: int
    rank: int = 0
    world_size: int = 1
    start_sample: int = 0

    def __post_init__(self) -> None:
        if self.global_batch % self.world_size:
            raise UsageError(
                f"training.global_batch={self.global_batch} cannot be divided evenly among "
                f"{self.world_size} processes",
                hint=f"Use a multiple of {self.world_size}, or another number of processes.",
            )


class SampleOrder:
    """A map from positions in the endless sequence of samples to epochs, shards and rows.

    Args:
        counts: number of samples in each shard.
        streams: number of slices; see the module docstring.
        kept: number of row orders (one shard in one epoch) to cache; default: one per shard.
    """

    def __init__(
        self, counts: tuple[int, ...], streams: int, seed: int, kept: int | None = None
    ) -> None:
        self._arguments = counts, streams, seed, kept
        self.counts = np.array(counts, dtype=np.int64)
        self.samples = int(self.counts.sum())
        self._streams = min(streams, self.samples)
        self._seed = seed
        small, larger = divmod(self.samples, self._streams)
        sizes = np.full(self._streams, small, dtype=np.int64)
        sizes[:larger] += 1
        self._slice_starts = np.cumsum(sizes) - sizes
        self._shard_order = lru_cache(maxsize=2)(self._compute_shard_order)
        self._row_order = lru_cache(maxsize=kept or len(counts))(self._compute_row_order)

    def __reduce__(self) -> tuple[object, ...]:
        return SampleOrder, self._arguments  # caches cannot be pickled

    def locate(self, positions: Ids) -> tuple[Ids, Ids, Ids]:
        """Return epochs, shards and rows of the samples at `positions`, all of the same shape."""
        epochs, inside = np.divmod(positions, self.samples)
        shards = np.empty_like(positions)
        rows = np.empty_like(positions)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            shards[chosen], rows[chosen] = self._locate_in_epoch(int(epoch), inside[chosen])
        return epochs, shards, rows

    def _locate_in_epoch(self, epoch: int, inside: Ids) -> tuple[Ids, Ids]:
        index = self._slice_starts[inside % self._streams] + inside // self._streams
        order, ends = self._shard_order(epoch)
        slot = np.searchsorted(ends, index, side="right")
        shards = order[slot]
        rows = index - (ends[slot] - self.counts[shards])
        for shard in np.unique(shards):
            chosen = shards == shard
            rows[chosen] = self._row_order(epoch, int(shard))[rows[chosen]]
        return shards, rows

    def _compute_shard_order(self, epoch: int) -> tuple[Ids, Ids]:
        order = permutation(len(self.counts), self._seed, Purpose.SHARD_ORDER, epoch)
        return order, np.cumsum(self.counts[order])

    def _compute_row_order(self, epoch: int, shard: int) -> Ids:
        return permutation(int(self.counts[shard]), self._seed, Purpose.ROW_ORDER, epoch, shard)


def rank_positions(step_start: int, global_batch: int, rank: int, world_size: int) -> Ids:
    """Return the positions of a rank's samples in the global batch that begins at `step_start`."""
    return np.arange(step_start + rank, step_start + global_batch, world_size, dtype=np.int64)
