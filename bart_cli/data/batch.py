"""The batch that every loader yields and the training loop consumes, and how rows make one.

Rows of token ids are sorted by length and padded to a multiple of 8.
"""

# Legend: B sequences, S source tokens, T target tokens.

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bart_cli.config.model import ModelConfig
from bart_cli.data.denoising import Ids
from bart_cli.tokenizer import Tokenizer

IGNORE = -100  # label of positions excluded from the loss (PyTorch's default ignore_index)
MULTIPLE = 8  # padded lengths are multiples of this, as tensor cores and SIMD units prefer


@dataclass(frozen=True)
class Batch:
    """One micro-batch on one device."""

    source: Tensor  # [B, S] int64 ids, right-padded with the pad id
    source_mask: Tensor  # [B, S] bool, True at real tokens, False at padding
    decoder_input: Tensor  # [B, T] int64 ids: the target shifted right by one, padded
    labels: Tensor  # [B, T] int64 ids, IGNORE at padding

    @property
    def sequences(self) -> int:
        return self.source.shape[0]

    def to(self, device: torch.device) -> Batch:
        """Copy the batch to a device. Copies to a GPU are asynchronous."""
        if device.type == "cuda":  # only copies from pinned memory do not block the host
            pinned = (x.pin_memory() for x in vars(self).values())
            return Batch(*(x.to(device, non_blocking=True) for x in pinned))
        return Batch(*(x.to(device) for x in vars(self).values()))


def pad_rows(
    rows: Sequence[Ids | list[int]], pad_id: int, *, positions: int | None = None
) -> Tensor:
    """Right-pad rows of ids to a common length, rounded up to a multiple of 8.

    Args:
        positions: maximum sequence length of the model. Padding does not exceed it.

    Returns:
        [rows, length] int64.
    """
    longest = max(len(row) for row in rows)
    width = -(-longest // MULTIPLE) * MULTIPLE
    if positions is not None and width > positions:
        width = max(longest, positions)
    padded = np.full((len(rows), width), pad_id, dtype=np.int64)
    for line, row in zip(padded, rows, strict=True):
        line[: len(row)] = row
    return torch.from_numpy(padded)


@dataclass(frozen=True)
class Collate:
    """A function that builds batches for a model."""

    pad_id: int
    decoder_start_id: int | None  # first decoder input; None uses each target's last token
    positions: int | None = None  # see `pad_rows`

    @classmethod
    def of(cls, tokenizer: Tokenizer, config: ModelConfig) -> Collate:
        """Build the training batches of a model."""
        return cls(tokenizer.pad_id, config.training_start_id, config.max_position_embeddings)

    def __call__(
        self, sources: Sequence[Ids | list[int]], targets: Sequence[Ids | list[int]]
    ) -> Batch:
        """Build a batch from rows of source and target ids that include special tokens."""
        source, source_mask = self._pad(sources)
        target, target_mask = self._pad(targets)
        start = self.decoder_start_id
        starts = [row[-1] if start is None else start for row in targets]
        return Batch(
            source=source,
            source_mask=source_mask,
            decoder_input=torch.column_stack([torch.tensor(starts), target[:, :-1]]),
            labels=target.masked_fill(~target_mask, IGNORE),
        )

    def _pad(self, rows: Sequence[Ids | list[int]]) -> tuple[Tensor, Tensor]:
        """Return the padded rows and their mask, both [rows, length]."""
        padded = pad_rows(rows, self.pad_id, positions=self.positions)
        lengths = torch.tensor([len(row) for row in rows])
        return padded, torch.arange(padded.shape[1])[None] < lengths[:, None]


def micro_batches(lengths: Ids, size: int, max_tokens: int | None = None) -> Iterator[Ids]:
    """Group row indices into micro-batches of similar length, longest rows first.

    Args:
        lengths: [rows] number of tokens in each row.
        size: maximum number of rows in a micro-batch.
        max_tokens: maximum number of tokens in a micro-batch, padding included. A longer row gets
            a micro-batch to itself.
    """
    order = np.argsort(-lengths, kind="stable")
    begin = 0
    while begin < len(order):
        rows = size
        if max_tokens is not None:
            longest = -(-int(lengths[order[begin]]) // MULTIPLE) * MULTIPLE
            rows = min(size, max(1, max_tokens // max(longest, 1)))
        yield order[begin : begin + rows]
        begin += rows
