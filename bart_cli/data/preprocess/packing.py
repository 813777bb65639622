"""Sentences to samples: fill the target length in BPE tokens, lose nothing.

In: the sentences of a document as rows of ids. Out: samples, each a list of sentence rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

FULL = 0.97  # a sample this full is closed; an emptier one takes the head of the next sentence


@dataclass
class Sample:
    """Sentences (or parts of them) that are trained on together."""

    sentences: list[list[int]] = field(default_factory=list)
    tokens: int = 0

    def add(self, sentence: list[int]) -> None:
        """Append a sentence."""
        self.sentences.append(sentence)
        self.tokens += len(sentence)


def pack(
    sentences: Sequence[list[int]],
    room: int,
    word_starts: NDArray[np.bool_],
    character_starts: NDArray[np.bool_],
) -> Iterator[Sample]:
    """Pack sentences greedily into samples of at most `room` tokens.

    A sentence that does not fit opens the next sample when this one is FULL already; else it is
    cut at the last word border that fits; inside a word only when the word alone is too long, and
    then between characters: half a character has no text.
    """
    sample = Sample()
    for sentence in sentences:
        begin = 0  # of what is left of the sentence; a copy of it for each sample would take long
        while sample.tokens + len(sentence) - begin > room:
            if sample.tokens >= FULL * room:
                yield sample
                sample = Sample()
                continue
            head = sentence[begin : begin + room + 1]
            cut = last_start(head, room - sample.tokens, word_starts)
            if cut == 0 and sample.tokens:
                yield sample
                sample = Sample()
                continue
            cut = cut or last_start(head, room, character_starts) or room
            sample.add(head[:cut])
            begin += cut
            yield sample
            sample = Sample()
        if begin < len(sentence):
            sample.add(sentence[begin:])
    if sample.tokens:
        yield sample


def last_start(sentence: list[int], room: int, starts: NDArray[np.bool_]) -> int:
    """The last index <= room with a token of `starts`, 0 when there is none."""
    for index in range(min(room, len(sentence) - 1), 0, -1):
        if starts[sentence[index]]:
            return index
    return 0
