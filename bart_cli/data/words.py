"""Words of any script: which tokens begin one, where spaces tell and where they do not.

Thai, Lao, Tibetan, Burmese, Khmer, Japanese and Chinese have no spaces between words. There every
token that begins with a character is a word: what a tokenizer learned of these scripts is the
nearest thing to one.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from bart_cli.tokenizer import Tokenizer

# The scripts without spaces, as ranges of a character class.
UNSPACED = (
    "\u0e00-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
# The same in UTF-8. A first byte alone will do where all its characters are of these scripts.
FIRST_BYTES = re.compile(
    rb"\xe0[\xb8-\xbf]|\xe1[\x80-\x82\x9e\x9f]|\xe3([\x81-\x83\x90-\xbf]|$)|[\xe4-\xe9]"
    rb"|\xef[\xa4-\xab]|\xf0[\xa0-\xbf]"
)


def word_starts(tokenizer: Tokenizer) -> NDArray[np.bool_]:
    """[vocabulary] bool: tokens that begin a word, and special tokens."""
    starts = tokenizer.word_starts()
    table = tokenizer.token_bytes()
    if table is None:
        ids = range(tokenizer.vocab_size)
        table = [text.encode() for text in tokenizer.decode_batch([[i] for i in ids])]
    unspaced = [FIRST_BYTES.match(token) is not None for token in table]
    return starts | np.array(unspaced)
