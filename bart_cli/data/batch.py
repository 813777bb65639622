"""The batch that every loader yields and the training loop consumes."""

# Legend: B sequences, S source tokens, T target tokens.

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

IGNORE = -100  # label of positions excluded from the loss (PyTorch's default ignore_index)


@dataclass(frozen=True)
class Batch:
    """One micro-batch on one device.

    source: [B, S] int64 ids, right-padded with the pad id.
    source_mask: [B, S] bool, True at real tokens, False at padding.
    decoder_input: [B, T] int64 ids: the target shifted right by one, padded with the pad id.
    labels: [B, T] int64 ids, IGNORE at padding.
    """

    source: Tensor
    source_mask: Tensor
    decoder_input: Tensor
    labels: Tensor

    @property
    def sequences(self) -> int:
        """Number of sequences in this micro-batch."""
        return self.source.shape[0]

    def to(self, device: torch.device) -> Batch:
        """Copy the batch to a device. Copies to a GPU are asynchronous."""
        if device.type == "cuda":  # only copies from pinned memory do not block the host
            return Batch(*(x.pin_memory().to(device, non_blocking=True) for x in self.tensors()))
        return Batch(*(x.to(device) for x in self.tensors()))

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the four tensors in constructor order."""
        return self.source, self.source_mask, self.decoder_input, self.labels


def shift_right(target: Tensor, *, start: Tensor | int, pad_id: int) -> Tensor:
    """Shift a target right by one position to make the decoder input.

    Args:
        target: [B, T] int64 ids, padded with `pad_id`.
        start: id of the first position, or [B] ids, one per row.

    Returns:
        [B, T]: `start`, followed by all but the last id of each row.
    """
    shifted = torch.full_like(target, pad_id)
    shifted[:, 0] = start
    shifted[:, 1:] = target[:, :-1]
    return shifted
