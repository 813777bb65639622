"""Dropout (Srivastava et al. 2014) that is fast on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

LEVELS = 2**16  # resolution of the probability: 16 random bits per element


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Zero elements with probability `p` and scale the others by 1 / (1 - p).

    On a CPU, torch draws one Bernoulli number per element, serially. Here one 64-bit random number
    serves four elements, and `p` is rounded to a multiple of 1/65536.
    """
    if not training or p == 0.0 or x.device.type != "cpu":
        return F.dropout(x, p, training)
    dropped = round(p * LEVELS)
    numbers = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    bits = numbers.view(torch.int16)[: x.numel()].view(x.shape)
    kept = (bits >= dropped - LEVELS // 2).to(x.dtype)
    return x * kept.mul_(LEVELS / max(1, LEVELS - dropped))
