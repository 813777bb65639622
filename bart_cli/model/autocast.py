"""Casting an activation once where autocast would do it for every matrix product that reads it."""

from __future__ import annotations

import torch
from torch import Tensor


def as_computed(x: Tensor) -> Tensor:
    """`x` in the dtype of autocast's matrix products; without autocast, unchanged."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x
