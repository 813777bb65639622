"""Top-k of long rows.

For a handful out of 50,000 scores, `topk` on the whole row costs as much as the softmax before it.
The best n scores lie in the n blocks with the highest maxima, so one pass for the maxima suffices.
"""

# Legend: R rows, V vocabulary, N wanted.

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 128


def best_of_rows(scores_RV: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the `count` highest scores of each row, best first, and their indices, [R, N] each."""
    blocks = scores_RV.shape[1] // BLOCK
    if blocks <= count:
        return scores_RV.topk(count)
    head = blocks * BLOCK  # the remainder, shorter than a block, is always searched
    maxima = scores_RV[:, :head].unflatten(1, (blocks, BLOCK)).amax(-1)
    chosen = maxima.topk(count)[1]
    inside = torch.arange(BLOCK, device=scores_RV.device)
    index = (chosen[:, :, None] * BLOCK + inside).flatten(1)
    tail = torch.arange(head, scores_RV.shape[1], device=scores_RV.device)
    index = torch.cat([index, tail.expand(len(index), -1)], 1)
    best, position = scores_RV.gather(1, index).topk(count)
    return best, index.gather(1, position)
