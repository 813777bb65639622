"""Encode texts of any length: truncate long ones, or split them into pieces at sentence ends.

In: texts of any length. Out: `Encoded`. A long text is tokenized in parts, so that memory stays
near the size of the text.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bart_cli.data.fields import source_text
from bart_cli.data.sentences import AUTO, spaced_sentences
from bart_cli.data.words import word_starts
from bart_cli.tokenizer import Tokenizer

PART = 2**16  # characters of a long text to tokenize at a time
SENTENCES = 1000  # sentences to tokenize at a time
WORD = 16  # tokens to search backward for a word boundary
PARAGRAPH = re.compile(r"\n\s*\n")


@dataclass(frozen=True)
class Encoded:
    """Token ids of a text."""

    # ids with special tokens, each at most as long as the model's positions; empty for a text
    # without words
    pieces: list[list[int]]
    tokens: int  # of the whole text
    used: int  # tokens in the pieces; like `tokens`, with special tokens counted once


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
        whole: split a text that is too long into pieces; otherwise truncate it.
        prefix: see `source_text`; only the first piece of a text has it.
        language: language of the sentence splitter; see `split_sentences`.
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
        kept, count = (rows[i], len(rows[i])) if i in rows else _truncated(text, tokenizer, room)
        if count <= room:
            pieces = [kept]
        elif whole:
            pieces = _pieces(text, tokenizer, room, language)
            count = sum(map(len, pieces))
        else:
            pieces = [tokenizer.truncate(kept, room)]
        used = sum(map(len, pieces))
        framed = [[*tokenizer.prefix, *piece, *tokenizer.suffix] for piece in pieces]
        encoded.append(Encoded(framed, count + special, used + special))
    return encoded


def pack(lengths: Sequence[int], room: int) -> list[range]:
    """Group consecutive items into as few groups as possible, of lengths as even as possible.

    Example: lengths 4, 4, 1, 1 with room 9 need two groups. Filling the first one up would give
    4 + 4 + 1 and 1; the smallest capacity that still needs only two groups is 6: 4 and 4 + 1 + 1.

    Args:
        lengths: length of each item, at most `room`.
        room: largest length of a group.

    Returns:
        the indices of each group.
    """
    count = len(_fill(lengths, room))
    low, high = max(lengths, default=0), room
    while low < high:  # search for the smallest capacity that needs no more groups
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
    """Split the ids of a long text at sentence ends, and within sentences that are too long."""
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
    # A piece does not start with a space; without it, the number of tokens rarely changes.
    stripped = _rows([tokenizer.decode(row).strip() for row in joined], tokenizer)
    return [new if len(new) <= room else old for new, old in zip(stripped, joined, strict=True)]


def _spaced_sentences(text: str, language: str) -> Iterator[str]:
    """Yield the sentences, each with the white space before it, so that they join to the text.

    Tokenized one by one, they have the same tokens as the whole text, including line breaks.
    """
    begin = 0
    for paragraph in PARAGRAPH.split(text):
        for sentence in map(str.strip, spaced_sentences(paragraph, language)):
            end = text.index(sentence, begin) + len(sentence)
            yield text[begin:end]
            begin = end


def _cut(row: list[int], tokenizer: Tokenizer, room: int) -> Iterator[list[int]]:
    """Split a sentence into even parts of at most `room` ids, at word or character boundaries."""
    starts = word_starts(tokenizer)
    begin = 0
    while begin < len(row):
        left = len(row) - begin
        end = begin + -(-left // -(-left // room))
        if end < len(row):
            near = range(end, max(end - WORD, begin), -1)
            boundary = next((i for i in near if starts[row[i]]), None)
            if boundary is None:  # no word ends nearby: at least do not split a UTF-8 character
                whole = (i for i in near if not tokenizer.decode(row[begin:i]).endswith("\ufffd"))
                boundary = next(whole, end)
            end = boundary
        yield row[begin:end]
        begin = end


def _rows(texts: Sequence[str], tokenizer: Tokenizer) -> list[list[int]]:
    """Tokenize each text, a very long one in parts."""
    parts = [list(_split(text)) for text in texts]
    rows = iter(tokenizer.encode_batch([p for part in parts for p in part], special=False))
    return [[token for _ in part for token in next(rows)] for part in parts]


def _truncated(text: str, tokenizer: Tokenizer, room: int) -> tuple[list[int], int]:
    """Return `room` ids of a text, and the number of all its ids."""
    kept: list[int] = []
    count = 0
    for part in _split(text):
        (row,) = tokenizer.encode_batch([part], special=False)
        count += len(row)
        kept = tokenizer.truncate(kept + row, room)
    return kept, count


def _split(text: str) -> Iterator[str]:
    """Split a text into parts of at most PART characters, if possible before a space."""
    begin = 0
    while begin < len(text):
        end = begin + PART
        if end < len(text):
            space = text.rfind(" ", begin + 1, end)
            end = space if space > 0 else end
        yield text[begin:end]
        begin = end
