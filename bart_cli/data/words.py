"""Tables of a vocabulary: the bytes of each token, and the tokens that begin a word or a character.

Thai, Lao, Tibetan, Burmese, Khmer, Japanese and Chinese have no spaces between words. In these
scripts, every token that begins at a character boundary counts as a word: the units learned by the
tokenizer are the closest approximation.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray
from tokenizers import decoders, models

from bart_cli.tokenizer import Tokenizer

# Scripts without spaces, as ranges of a regular-expression character class.
UNSPACED = (
    "\u0e00-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
# The same in UTF-8. The first byte suffices where all characters with it belong to these scripts.
FIRST_BYTES = re.compile(
    rb"\xe0[\xb8-\xbf]|\xe1[\x80-\x82\x9e\x9f]|\xe3([\x81-\x83\x90-\xbf]|$)|[\xe4-\xe9]"
    rb"|\xef[\xa4-\xab]|\xf0[\xa0-\xbf]"
)
# Byte-level BPE represents a printable byte by the character with that code point, and the others,
# in order, by the characters from U+0100.
PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
OTHERS = sorted(set(range(0x100)).difference(PRINTABLE))
LETTERS = {byte: chr(byte) for byte in PRINTABLE} | {
    b: chr(0x100 + i) for i, b in enumerate(OTHERS)
}
BYTES = {letter: byte for byte, letter in LETTERS.items()}
LATIN_1 = {ord(letter): byte for letter, byte in BYTES.items()}
FALLBACK = {f"<0x{byte:02X}>": byte for byte in range(0x100)}  # sentencepiece's byte tokens


def word_starts(tokenizer: Tokenizer) -> NDArray[np.bool_]:
    """[vocab_size] bool, True for tokens that begin a word and for special tokens.

    In byte-level BPE and sentencepiece, the first token of a word includes the space before it.
    In WordPiece, all other tokens have a prefix such as ##. In tokenizers of other kinds, every
    token counts as a word.
    """
    backend, model = tokenizer.backend, tokenizer.backend.model
    around = repr((backend.normalizer, backend.pre_tokenizer, backend.decoder))
    marks: tuple[str, ...] = ("Ġ", "Ċ") if "ByteLevel" in around else ()
    marks += ("▁",) if "▁" in around else ()
    word_piece = isinstance(model, models.WordPiece)
    prefixes = model.continuing_subword_prefix if word_piece else marks or ("",)
    starts = np.zeros(tokenizer.vocab_size, dtype=bool)
    for token, index in tokenizer.entries.items():
        # WordPiece marks the tokens that do not begin a word.
        starts[index] = token.startswith(prefixes) != word_piece
    starts[list(tokenizer.special.values())] = True
    table = token_bytes(tokenizer)
    if table is None:
        ids = range(tokenizer.vocab_size)
        table = [text.encode() for text in tokenizer.decode_batch([[i] for i in ids])]
    return starts | np.array([FIRST_BYTES.match(token) is not None for token in table])


def character_starts(tokenizer: Tokenizer) -> NDArray[np.bool_]:
    """[vocab_size] bool, True for tokens that begin at a character boundary."""
    byte_level = isinstance(tokenizer.backend.decoder, decoders.ByteLevel)
    starts = np.ones(tokenizer.vocab_size, dtype=bool)
    for token, index in tokenizer.entries.items():
        first = BYTES.get(token[:1], 0) if byte_level else FALLBACK.get(token, 0)
        starts[index] = not 0x80 <= first < 0xC0  # UTF-8 continuation bytes
    return starts


def token_bytes(tokenizer: Tokenizer) -> list[bytes] | None:
    """Return the bytes of every id, b"" for special tokens. Decoding concatenates them.

    Returns:
        [vocab_size], or None if the tokenizer decodes in another way.
    """
    added = tokenizer.backend.get_added_tokens_decoder()
    byte_level = isinstance(tokenizer.backend.decoder, decoders.ByteLevel)
    if not byte_level or not all(token.special for token in added.values()):
        return None
    plain = {token: index for token, index in tokenizer.entries.items() if index not in added}
    if not BYTES.keys() >= set().union(*plain):
        return None
    table = [b""] * tokenizer.vocab_size
    for token, index in plain.items():
        table[index] = token.translate(LATIN_1).encode("latin-1")
    return table
