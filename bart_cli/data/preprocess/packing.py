"""Pack sentences into samples of the target length in BPE tokens, without losing tokens.

In: the sentences of a document as rows of ids. Out: samples, each a list of such rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

FULL = 0.97  # a sample filled less than this takes the beginning of the next sentence


def pack(
    sentences: Sequence[list[int]],
    room: int,
    word_starts: NDArray[np.bool_],
    character_starts: NDArray[np.bool_],
) -> Iterator[list[list[int]]]:
    """Pack sentences greedily into samples, lists of (parts of) sentences.

    If a sentence does not fit, it begins the next sample if the current one is filled to FULL.
    Otherwise it is cut at the last word boundary that fits. A word is cut only if it is longer than
    a sample, and then between characters, since part of a character cannot be decoded.

    Args:
        sentences: rows of ids.
        room: maximum number of tokens in a sample.
        word_starts, character_starts: [vocab_size] True for tokens that begin a word or character.
    """
    sample: list[list[int]] = []
    tokens = 0
    for sentence in sentences:
        begin = 0  # start of the rest of the sentence; copying the rest would take quadratic time
        while tokens + len(sentence) - begin > room:
            head = sentence[begin : begin + room + 1]
            cut = last_start(head, room - tokens, word_starts) if tokens < FULL * room else 0
            if cut or not tokens:
                cut = cut or last_start(head, room, character_starts) or room
                sample.append(head[:cut])
                begin += cut
            yield sample
            sample, tokens = [], 0
        if begin < len(sentence):
            sample.append(sentence[begin:])
            tokens += len(sentence) - begin
    if tokens:
        yield sample


def last_start(sentence: list[int], room: int, starts: NDArray[np.bool_]) -> int:
    """Return the last index <= `room` of a token in `starts`, or 0 if there is none."""
    for index in range(min(room, len(sentence) - 1), 0, -1):
        if starts[sentence[index]]:
            return index
    return 0
