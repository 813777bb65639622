"""Texts as token ids that the model can read: cut at its positions, or in pieces at sentence ends.

In: texts of any length. Out: `Encoded`. Memory stays near the size of the text: what is long is
given to the tokenizer part by part.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bart_cli.data.sentences import AUTO, spaced_sentences
from bart_cli.data.source_text import source_text
from bart_cli.data.words import word_starts
from bart_cli.tokenizer import Tokenizer

PART = 2**16  # characters given to the tokenizer at once, of a long text
SENTENCES = 1000  # sentences given to the tokenizer at once
WORD = 16  # tokens within which a border between words is looked for
PARAGRAPH = re.compile(r"\n\s*\n")


@dataclass(frozen=True)
class Encoded:
    """A text as the model reads it.

    pieces: ids with special tokens, each no longer than the model's positions; none for a text
    without words. tokens: of the whole text; used: of those in the pieces; both count the special
    tokens of one piece.
    """

    pieces: list[list[int]]
    tokens: int
    used: int


def encode_texts(
    texts: Sequence[str],
    tokenizer: Tokenizer,
    limit: int,
    *,
    whole: bool,
    prefix: str = "",
    language: str = AUTO,
) -> list[Encoded]:
    """Encode texts for a model of `limit` positions.

    Args:
        prefix: see `source_text`; of several pieces only the first one has it.
        whole: a text that is too long becomes several pieces; else its first `limit` tokens remain.
        language: of sentence splitting, see `split_sentences`.
    """
    read = [source_text(text, prefix) for text in texts]
    short = [i for i, text in enumerate(read) if len(text) <= PART]
    rows = dict(zip(short, _rows([read[i] for i in short], tokenizer), strict=True))
    special = len(tokenizer.prefix) + len(tokenizer.suffix)
    room = limit - special
    encoded = []
    for i, text in enumerate(read):
        if not text:
            encoded.append(Encoded([], 0, 0))
            continue
        kept, count = (rows[i], len(rows[i])) if i in rows else _beginning(text, tokenizer, room)
        if count <= room:
            pieces = [kept]
        elif whole:
            pieces = _pieces(text, tokenizer, room, language)
            count = sum(map(len, pieces))
        else:
            pieces = [kept[:room]]
        used = sum(map(len, pieces))
        framed = [[*tokenizer.prefix, *piece, *tokenizer.suffix] for piece in pieces]
        encoded.append(Encoded(framed, count + special, used + special))
    return encoded


def pack(lengths: Sequence[int], room: int) -> list[range]:
    """Group neighbors into as few groups of at most `room` as possible, as evenly as possible.

    Args:
        lengths: each at most `room`.
    """
    count = len(_fill(lengths, room))
    low, high = max(lengths, default=0), room
    while low < high:  # the smallest capacity that still needs no more groups
        middle = (low + high) // 2
        if len(_fill(lengths, middle)) <= count:
            high = middle
        else:
            low = middle + 1
    return _fill(lengths, high)


def _fill(lengths: Sequence[int], capacity: int) -> list[range]:
    groups, begin, total = [], 0, 0
    for i, length in enumerate(lengths):
        if total + length > capacity and i > begin:
            groups.append(range(begin, i))
            begin, total = i, 0
        total += length
    if begin < len(lengths):
        groups.append(range(begin, len(lengths)))
    return groups


def _pieces(text: str, tokenizer: Tokenizer, room: int, language: str) -> list[list[int]]:
    """Ids of a long text, cut at ends of sentences; a sentence that is too long, within it."""
    spaced = list(_spaced_sentences(text, language))
    rows = [
        part
        for begin in range(0, len(spaced), SENTENCES)
        for row in _rows(spaced[begin : begin + SENTENCES], tokenizer)
        for part in (_cut(row, tokenizer, room) if len(row) > room else [row])
    ]
    joined = [
        [token for i in group for token in rows[i]]
        for group in pack([len(row) for row in rows], room)
    ]
    # A text of its own has no space before it: mostly that is no token more or less.
    stripped = _rows([tokenizer.decode(row).strip() for row in joined], tokenizer)
    return [new if len(new) <= room else old for new, old in zip(stripped, joined, strict=True)]


def _spaced_sentences(text: str, language: str) -> Iterator[str]:
    """Sentences that give the text when joined, each behind the white space before it.

    Tokenized one by one they have the tokens of the whole text, line breaks included.
    """
    begin = 0
    for paragraph in PARAGRAPH.split(text):
        for sentence in map(str.strip, spaced_sentences(paragraph, language)):
            end = text.index(sentence, begin) + len(sentence)
            yield text[begin:end]
            begin = end


def _cut(row: list[int], tokenizer: Tokenizer, room: int) -> Iterator[list[int]]:
    """Parts of at most `room`, even if it can be; between words or at least between characters."""
    starts = word_starts(tokenizer)
    begin = 0
    while begin < len(row):
        left = len(row) - begin
        end = begin + -(-left // -(-left // room))
        if end < len(row):
            near = range(end, max(end - WORD, begin), -1)
            border = next((i for i in near if starts[row[i]]), None)
            if border is None:  # no space far and wide: not within the bytes of a character
                whole = (i for i in near if not tokenizer.decode(row[begin:i]).endswith("\ufffd"))
                border = next(whole, end)
            end = border
        yield row[begin:end]
        begin = end


def _rows(texts: Sequence[str], tokenizer: Tokenizer) -> list[list[int]]:
    """Ids of each text, those of a very long one made part by part."""
    parts = [list(_split(text)) for text in texts]
    rows = iter(tokenizer.encode_batch([p for part in parts for p in part], special=False))
    return [[token for _ in part for token in next(rows)] for part in parts]


def _beginning(text: str, tokenizer: Tokenizer, room: int) -> tuple[list[int], int]:
    """The first `room` ids (or a few more) of a text, and how many it has."""
    kept: list[int] = []
    count = 0
    for part in _split(text):
        (row,) = tokenizer.encode_batch([part], special=False)
        count += len(row)
        if len(kept) < room:
            kept += row
    return kept, count


def _split(text: str) -> Iterator[str]:
    """A text in parts of at most PART characters, cut before spaces where there are any."""
    begin = 0
    while begin < len(text):
        end = begin + PART
        if end < len(text):
            space = text.rfind(" ", begin + 1, end)
            end = space if space > 0 else end
        yield text[begin:end]
        begin = end
