"""Load batches for fine-tuning: pairs in random order, grouped by length, padded.

As in pre-training, the batches are a pure function of the number of samples consumed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache

import numpy as np

from bart_cli.config.data import SummarizationDataConfig
from bart_cli.data.batch import Batch, Collate, micro_batches
from bart_cli.data.denoising import Ids
from bart_cli.data.order import Share
from bart_cli.data.pair_ids import EncodedPairs
from bart_cli.data.random_keys import Purpose, permutation

GROUPED_BATCHES = 50  # global batches in a window that is sorted by length


@dataclass
class SummarizationLoader:
    """An endless iterator; each item is a list of this rank's micro-batches for one optimizer step.

    It starts at the first sample of `share`. `seed`: seed of the order.
    """

    pairs: EncodedPairs
    data: SummarizationDataConfig
    share: Share
    _: KW_ONLY
    seed: int
    collate: Collate

    def __post_init__(self) -> None:
        self.samples_per_epoch = len(self.pairs.sources)
        self._lengths = self.pairs.sources.lengths
        self._epoch_order = lru_cache(maxsize=2)(self._compute_epoch_order)

    def tokens_per_epoch(self) -> int:
        """Return the tokens of all articles and summaries."""
        return int(self._lengths.sum() + self.pairs.targets.lengths.sum())

    def __iter__(self) -> Iterator[list[Batch]]:
        share, start = self.share, self.share.start_sample
        while True:
            rows = self._rows(np.arange(start, start + share.global_batch))
            # Distributing the sorted batch round-robin balances the lengths between ranks.
            dealt = rows[np.argsort(-self._lengths[rows], kind="stable")]
            own = dealt[share.rank :: share.world_size]
            groups = micro_batches(self._lengths[own], share.micro_batch, self.data.max_tokens)
            yield [_batch(self.pairs, own[chosen], self.collate) for chosen in groups]
            start += share.global_batch

    def _rows(self, positions: Ids) -> Ids:
        epochs, inside = np.divmod(positions, self.samples_per_epoch)
        rows = np.empty_like(positions)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            rows[chosen] = self._epoch_order(int(epoch))[inside[chosen]]
        return rows

    def _compute_epoch_order(self, epoch: int) -> Ids:
        order = permutation(self.samples_per_epoch, self.seed, Purpose.PAIR_ORDER, epoch)
        if not self.data.group_by_length:
            return order
        batch = self.share.global_batch
        window = batch * GROUPED_BATCHES
        groups = []
        for begin in range(0, len(order), window):
            part = order[begin : begin + window]
            part = part[np.argsort(-self._lengths[part], kind="stable")]
            groups += [part[i : i + batch] for i in range(0, len(part), batch)]
        # Keep an incomplete batch last, so that the others stay aligned with global batches.
        full = [group for group in groups if len(group) == batch]
        rest = [group for group in groups if len(group) < batch]
        mixed = [full[i] for i in permutation(len(full), self.seed, Purpose.BATCH_GROUPS, epoch)]
        return np.concatenate([*mixed, *rest])


def summarization_validation_batches(
    pairs: EncodedPairs, share: Share, collate: Collate
) -> Iterator[Batch]:
    """Yield this rank's part of all pairs once, longest sources first."""
    rows = np.arange(share.rank, len(pairs.sources), share.world_size)
    for chosen in micro_batches(pairs.sources.lengths[rows], share.micro_batch):
        yield _batch(pairs, rows[chosen], collate)


def _batch(pairs: EncodedPairs, rows: Ids, collate: Collate) -> Batch:
    numbers = rows.tolist()
    return collate([pairs.sources[row] for row in numbers], [pairs.targets[row] for row in numbers])
