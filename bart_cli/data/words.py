"""Find the tokens that begin a word, in scripts with and without spaces.

Thai, Lao, Tibetan, Burmese, Khmer, Japanese and Chinese have no spaces between words. In these
scripts, every token that begins at a character boundary counts as a word: the units learned by the
tokenizer are the closest approximation.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

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


def word_starts(tokenizer: Tokenizer) -> NDArray[np.bool_]:
    """[vocab_size] bool, True for tokens that begin a word and for special tokens."""
    starts = tokenizer.word_starts()
    table = tokenizer.token_bytes()
    if table is None:
        ids = range(tokenizer.vocab_size)
        table = [text.encode() for text in tokenizer.decode_batch([[i] for i in ids])]
    unspaced = [FIRST_BYTES.match(token) is not None for token in table]
    return starts | np.array(unspaced)
