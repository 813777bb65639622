"""Batches for fine-tuning: pairs in a keyed order, grouped by length, padded.

As for pre-training, the batches are a pure function of the number of samples consumed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from bart_cli.config.data import SummarizationDataConfig
from bart_cli.data.batch import Batch
from bart_cli.data.collate import make_batch, micro_batches
from bart_cli.data.denoising import Ids
from bart_cli.data.order import Share, rank_positions
from bart_cli.data.pairs import Pair, PairSource, read_token_ids
from bart_cli.data.random_keys import permutation
from bart_cli.data.source_text import source_text
from bart_cli.progress import Reporter
from bart_cli.tokenizer import Tokenizer

PAIRS, GROUPS = 104, 105  # purposes of random numbers
GROUPED_BATCHES = 50  # batches that are filled together from one sorted window


@dataclass(frozen=True)
class EncodedPairs:
    """Token ids of both sides, special tokens included, cut to their limits."""

    sources: list[list[int]]
    targets: list[list[int]]
    cut_sources: int
    cut_targets: int


def load_encoded(
    source: PairSource,
    split: str,
    limit: int | None,
    data: SummarizationDataConfig,
    tokenizer: Tokenizer,
    prefix: str = "",
    reporter: Reporter = Reporter(),
) -> EncodedPairs:
    """The pairs of a split as ids; tokenized now, unless `bart preprocess` did it with this BPE.

    Args:
        prefix: see `source_text`; prepared ids have none.

    Raises:
        UsageError: see PairSource.read.
    """
    table = None if prefix.strip() else source.prepared(split)
    ids = None if table is None else read_token_ids(table, limit, tokenizer)
    if ids is not None:
        sources, targets = map(tokenizer.known, ids)
        return cut_pairs(sources, targets, data, tokenizer)
    found = source.read(split, limit=limit)
    found.tell(reporter)
    return encode_pairs(found.pairs, data, tokenizer, prefix)


def encode_pairs(
    pairs: Sequence[Pair], data: SummarizationDataConfig, tokenizer: Tokenizer, prefix: str = ""
) -> EncodedPairs:
    """Pairs as ids, cut to their limits."""
    return cut_pairs(
        tokenizer.encode_batch([source_text(pair.source, prefix) for pair in pairs]),
        tokenizer.encode_targets([source_text(pair.target) for pair in pairs]),
        data,
        tokenizer,
    )


def cut_pairs(
    sources: list[list[int]],
    targets: list[list[int]],
    data: SummarizationDataConfig,
    tokenizer: Tokenizer,
) -> EncodedPairs:
    """Cut both sides to their limits; the special tokens at the end stay."""
    sides, cut = [], []
    for rows, limit, suffix in (
        (sources, data.max_source_length, tokenizer.suffix),
        (targets, data.max_target_length, tokenizer.target_frame[1]),
    ):
        cut.append(sum(len(row) > limit for row in rows))
        sides.append([cut_row(row, limit, suffix) for row in rows])
    return EncodedPairs(sides[0], sides[1], cut[0], cut[1])


def cut_row(row: list[int], limit: int, suffix: list[int]) -> list[int]:
    """At most `limit` ids of a row that ends with `suffix`, which stays."""
    return row if len(row) <= limit else row[: limit - len(suffix)] + suffix


class SummarizationLoader:
    """Endless: each item is this rank's micro-batches of one optimizer step."""

    def __init__(
        self,
        pairs: EncodedPairs,
        data: SummarizationDataConfig,
        tokenizer: Tokenizer,
        share: Share,
        *,
        seed: int,
        decoder_start_id: int | None,
        positions: int | None = None,
    ) -> None:
        self.samples_per_epoch = len(pairs.sources)
        self._pairs, self._data, self._share, self._seed = pairs, data, share, seed
        self._shape: dict[str, Any] = {
            "pad_id": tokenizer.pad_id,
            "decoder_start_id": decoder_start_id,
            "positions": positions,
        }
        self._lengths = np.array([len(row) for row in pairs.sources], dtype=np.int64)
        self._epoch_order = lru_cache(maxsize=2)(self._compute_epoch_order)

    def __iter__(self) -> Iterator[list[Batch]]:
        share, start = self._share, self._share.start_sample
        while True:
            positions = rank_positions(start, share.global_batch, 0, 1)
            rows = self._rows(positions)
            # Dealing the sorted batch like cards gives every rank the same mixture of lengths.
            dealt = rows[np.argsort(-self._lengths[rows], kind="stable")]
            yield self._micro_batches(dealt[share.rank :: share.world_size])
            start += share.global_batch

    def _micro_batches(self, rows: Ids) -> list[Batch]:
        return [
            self._batch(rows[chosen])
            for chosen in micro_batches(
                self._lengths[rows], self._share.micro_batch, self._data.max_tokens
            )
        ]

    def _batch(self, rows: Ids) -> Batch:
        pairs = self._pairs
        return make_batch(
            [pairs.sources[row] for row in rows],
            [pairs.targets[row] for row in rows],
            **self._shape,
        )

    def _rows(self, positions: Ids) -> Ids:
        epochs, inside = np.divmod(positions, self.samples_per_epoch)
        rows = np.empty_like(positions)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            rows[chosen] = self._epoch_order(int(epoch))[inside[chosen]]
        return rows

    def _compute_epoch_order(self, epoch: int) -> Ids:
        order = permutation(self.samples_per_epoch, self._seed, PAIRS, epoch)
        if not self._data.group_by_length:
            return order
        batch = self._share.global_batch
        window = batch * GROUPED_BATCHES
        groups = []
        for begin in range(0, len(order), window):
            part = order[begin : begin + window]
            part = part[np.argsort(-self._lengths[part], kind="stable")]
            groups += [part[i : i + batch] for i in range(0, len(part), batch)]
        # A short group stays last, so that the others remain whole batches.
        full = [group for group in groups if len(group) == batch]
        rest = [group for group in groups if len(group) < batch]
        mixed = [full[i] for i in permutation(len(full), self._seed, GROUPS, epoch)]
        return np.concatenate([*mixed, *rest])


def summarization_validation_batches(
    pairs: EncodedPairs,
    tokenizer: Tokenizer,
    share: Share,
    *,
    decoder_start_id: int | None,
    positions: int | None = None,
) -> Iterator[Batch]:
    """This rank's part of all pairs, once, longest first."""
    rows = range(share.rank, len(pairs.sources), share.world_size)
    lengths = np.array([len(pairs.sources[row]) for row in rows], dtype=np.int64)
    for chosen in micro_batches(lengths, share.micro_batch):
        members = [rows[int(i)] for i in chosen]
        yield make_batch(
            [pairs.sources[row] for row in members],
            [pairs.targets[row] for row in members],
            pad_id=tokenizer.pad_id,
            decoder_start_id=decoder_start_id,
            positions=positions,
        )
