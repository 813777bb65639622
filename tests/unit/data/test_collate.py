"""Micro-batches: every row once, sorted, within their limits."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bart_cli.data.batch import Collate, micro_batches


@given(
    st.lists(st.integers(1, 300), max_size=50),
    st.integers(1, 9),
    st.one_of(st.none(), st.integers(64, 900)),
)
def test_every_row_occurs_once_within_the_limits(
    lengths: list[int], size: int, max_tokens: int | None
) -> None:
    found = list(micro_batches(np.array(lengths, dtype=np.int64), size, max_tokens))
    order = [int(row) for batch in found for row in batch]
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[row] for row in order] == sorted(lengths, reverse=True)
    for batch in found:
        padded = -(-max(lengths[row] for row in batch) // 8) * 8
        assert len(batch) <= size
        assert max_tokens is None or len(batch) == 1 or len(batch) * padded <= max_tokens


def test_padding_does_not_exceed_the_models_positions() -> None:
    """KoBART has 1,026 positions, which is not divisible by 8."""
    rows = [[5] * length for length in (18, 3)]
    for positions, width in ((None, 24), (18, 18), (20, 20), (24, 24), (99, 24)):
        batch = Collate(1, 2, positions)(rows, rows)
        assert batch.source.shape == batch.decoder_input.shape == batch.labels.shape == (2, width)
