"""Random numbers as a pure function of their keys, for whole arrays at once.

A sample's noise depends on (seed, epoch, sample) alone, not on the batch, rank or worker that
computes it, so a generator with a state will not do. SplitMix64 (Steele, Lea & Flood 2014) mixes
a counter into 64 random bits and is three lines of vectorized integer arithmetic.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]


class Purpose(IntEnum):
    """The second part of a key: keeps the random numbers of different purposes independent.

    A number, once used, never changes: runs would no longer resume bit for bit.
    """

    SHARD_ORDER = 101
    ROW_ORDER = 102
    NOISE = 103
    PAIR_ORDER = 104
    BATCH_GROUPS = 105
    DROPOUT = 106
    INSPECTED_SAMPLES = 901
    INSPECTED_NOISE = 902


GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(x: Keys) -> Keys:
    """SplitMix64's finalizer: a bijection of 64 bits that scatters neighboring inputs."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def derive(*parts: int | Keys) -> Keys:
    """One key from several numbers or arrays (broadcast): the order of the parts matters."""
    with np.errstate(over="ignore"):
        key = np.zeros((), dtype=np.uint64)
        for part in parts:
            value = np.uint64(part) if isinstance(part, int) else part.astype(np.uint64)
            key = mix((key ^ value) + GOLDEN)
        return np.asarray(key)


def uniform(*parts: int | Keys) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), one per key."""
    return (derive(*parts) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(size: int, *parts: int) -> NDArray[np.int64]:
    """A random order of range(size)."""
    return np.argsort(derive(*parts, np.arange(size, dtype=np.uint64)), kind="stable")
