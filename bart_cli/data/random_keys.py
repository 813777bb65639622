"""Random numbers as a pure function of keys, vectorized.

The noise of a sample depends only on (seed, epoch, sample), not on the batch, rank or worker that
computes it. This rules out a stateful generator. SplitMix64 (Steele, Lea & Flood 2014) mixes a
counter into 64 random bits with three lines of vectorized integer arithmetic.
"""

from __future__ import annotations

from enum import IntEnum, unique

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]


@unique
class Purpose(IntEnum):
    """A part of a key that makes random numbers for different purposes independent.

    Never change a number: it would break bitwise resume of existing runs.
    """

    # After the key of a sample:
    PERMUTE = 0
    ROUND = 1
    SPAN = 2
    PLACE = 3
    REPLACE = 4
    TOKEN = 5
    ROTATE = 6
    CUT = 7
    # Mixed into it, so that each scheme draws independently; permute and infill use the key itself:
    MASK_SCHEME = 11
    DELETE_SCHEME = 12
    INSERT_SCHEME = 13
    ROTATE_SCHEME = 14
    # After the seed of a run:
    SHARD_ORDER = 101
    ROW_ORDER = 102
    NOISE = 103
    PAIR_ORDER = 104
    BATCH_GROUPS = 105
    DROPOUT = 106
    INSPECTED_SAMPLES = 901
    INSPECTED_NOISE = 902


GOLDEN = np.uint64(0x9E3779B97F4A7C15)
SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))
FACTORS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def mix(x: Keys) -> Keys:
    """SplitMix64's finalizer, in place: a bijection on 64-bit integers that scatters neighbors."""
    x ^= x >> SHIFTS[0]
    x *= FACTORS[0]
    x ^= x >> SHIFTS[1]
    x *= FACTORS[1]
    x ^= x >> SHIFTS[2]
    return x


def derive(*parts: int | Keys) -> Keys:
    """Derive keys from integers or arrays, which are broadcast; the order of the parts matters."""
    with np.errstate(over="ignore"):
        key = np.zeros((), dtype=np.uint64)
        for part in parts:
            value = np.uint64(part) if isinstance(part, int) else part.astype(np.uint64)
            key = key ^ value
            key += GOLDEN
            key = mix(key)
        return np.asarray(key)


def uniform(*parts: int | Keys) -> NDArray[np.float64]:
    """Draw one uniform number in [0, 1) per key; the parts are as for `derive`."""
    return (derive(*parts) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(size: int, *parts: int) -> NDArray[np.int64]:
    """Draw a random permutation of range(size)."""
    return np.argsort(derive(*parts, np.arange(size, dtype=np.uint64)), kind="stable")
