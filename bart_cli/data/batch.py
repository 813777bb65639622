"""The batch: what every loader yields and the training loop consumes."""

# Legend: B sequences, S source tokens, T target tokens.

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

IGNORE = -100  # label of positions without a loss (torch's default ignore_index)


@dataclass(frozen=True)
class Batch:
    """One micro-batch on one device.

    source: [B, S] int64 ids, padded at the right with the pad id.
    source_mask: [B, S] bool, True at real tokens.
    decoder_input: [B, T] int64 ids: the target moved one to the right, padded with the pad id.
    labels: [B, T] int64 ids, IGNORE at padding.
    """

    source: Tensor
    source_mask: Tensor
    decoder_input: Tensor
    labels: Tensor

    @property
    def sequences(self) -> int:
        """Sequences in this micro-batch."""
        return self.source.shape[0]

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device; a GPU fetches it while the processor goes on."""
        if device.type == "cuda":  # only copies from page-locked memory do not block
            return Batch(*(x.pin_memory().to(device, non_blocking=True) for x in self.tensors()))
        return Batch(*(x.to(device) for x in self.tensors()))

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The four tensors in the order of the constructor."""
        return self.source, self.source_mask, self.decoder_input, self.labels


def shift_right(target: Tensor, *, start: Tensor | int, pad_id: int) -> Tensor:
    """Decoder input of a target [B, T] padded with `pad_id`: `start`, then all but the last.

    Args:
        start: an id, or one for each row [B].
    """
    shifted = torch.full_like(target, pad_id)
    shifted[:, 0] = start
    shifted[:, 1:] = target[:, :-1]
    return shifted
