"""Exact duplicates among the documents of a corpus: the first one stays.

Workers write a 128-bit hash per document; the client sorts them (44 bytes a document: 4.4 GB for
100 million) and writes, for each block, the numbers of the documents to leave out.
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
    """Write the hashes of a block's documents to a .npy file, unless it is there; their number."""
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
    """Write the numbers (in their block) of all documents that came before; how many they are."""
    parts = [np.load(path) for path in hashed]
    lengths = [len(part) for part in parts]
    hashes = np.concatenate(parts)
    del parts  # else they would add to the peak of memory, which is sorting
    order = np.lexsort((hashes["low"], hashes["high"]))  # stable: the first of equals stays first
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
