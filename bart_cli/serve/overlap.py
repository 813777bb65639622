"""Find the sentences of a source that share words with each sentence of its summary.

A source sentence matches if it contains at least `SHARE` of the words of the summary sentence; the
best `MOST` are returned. A word is a number or a run of at least four letters, ignoring case, or a
single character in scripts without spaces.
"""

from __future__ import annotations

import re

from bart_cli.data.sentences import spaced_sentences
from bart_cli.data.words import UNSPACED

SHARE = 0.2
MOST = 3
SENTENCES = 5_000  # sentences of a source to compare and return
LETTER = rf"(?:(?![{UNSPACED}])[^\W_])"
WORD = re.compile(rf"[{UNSPACED}]|{LETTER}*\d{LETTER}*|{LETTER}{{4,}}")


def overlap(source: str, summary: str) -> dict[str, object]:
    """Match each summary sentence with source sentences.

    Returns:
        {"source": sentences, "summary": [{"text": sentence, "source": [[index, share], ...]}]}
    """
    sentences = spaced_sentences(source)[:SENTENCES]
    words = [_words(sentence) for sentence in sentences]
    rows = []
    for sentence in spaced_sentences(summary):
        own = _words(sentence)
        shares = [(len(own & other) / max(1, len(own)), -i) for i, other in enumerate(words)]
        best = sorted((pair for pair in shares if pair[0] >= SHARE), reverse=True)[:MOST]
        rows.append({"text": sentence, "source": [[-i, round(share, 3)] for share, i in best]})
    return {"source": sentences, "summary": rows}


def _words(text: str) -> set[str]:
    return set(WORD.findall(text.casefold()))
