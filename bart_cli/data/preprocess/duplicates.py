"""Find exact duplicates among the documents of a corpus, keeping the first of each.

Workers write a 128-bit hash per document. The client sorts the hashes (44 bytes per document: 4.4
GB for 100 million) and writes, for each block, the indices of the documents to skip.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bart_cli.data.documents import Block, read_blocks
from bart_cli.files import atomic_file

HASH = np.dtype([("high", "<u8"), ("low", "<u8")])


def hash_block(task: tuple[tuple[Block, ...], Path]) -> int:
    """Hash the documents of `task`'s blocks to a .npy file, unless it exists; return the number."""
    blocks, path = task
    if path.is_file():
        return len(np.load(path))
    digests = b"".join(
        hashlib.blake2b(text.encode("utf-8"), digest_size=16).digest()
        for _, text in read_blocks(blocks)
    )
    hashes = np.frombuffer(digests, dtype=HASH)
    _save(path, hashes)
    return len(hashes)


def mark_duplicates(hashed: Sequence[Path], marks: Sequence[Path]) -> int:
    """Write the indices of repeated documents within each block; return their total number.

    Args:
        hashed: files written by `hash_block`.
        marks: output files, one for each of `hashed`.
    """
    parts = [np.load(path) for path in hashed]
    lengths = [len(part) for part in parts]
    hashes = np.concatenate(parts)
    del parts  # lowers the peak memory, which sorting reaches
    order = np.lexsort((hashes["low"], hashes["high"]))  # stable: keeps the first of equal hashes
    ordered = hashes[order]
    repeated = np.zeros(len(hashes), dtype=bool)
    repeated[order[1:]] = ordered[1:] == ordered[:-1]
    begin = 0
    for length, path in zip(lengths, marks, strict=True):
        _save(path, np.flatnonzero(repeated[begin : begin + length]))
        begin += length
    return int(repeated.sum())


def _save(path: Path, array: NDArray) -> None:
    with atomic_file(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, array)
