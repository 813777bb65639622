"""Sentence splitting by rules, for English: one text in, its sentences out, nothing lost.

One splitter serves pre-processing, evaluation (ROUGE-Lsum) and the summaries of long documents.
"""

from __future__ import annotations

import re

ABBREVIATIONS = frozenset(
    """
    mr mrs ms dr prof st sr jr rev hon gen col maj capt lt sgt gov sen rep pres supt det insp cmdr
    vs etc inc ltd co corp bros dept univ assn ave blvd rd al ca cf approx est
    jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thur thurs fri sat sun
    e.g i.e a.m p.m u.s u.k u.n d.c
    """.split()
)
# Before a number only: "No. 5" goes on, "No. He left." does not.
NUMBERED = frozenset("no nos vol fig eq sec".split())
# These may also end a sentence; the next word decides.
AMBIGUOUS = frozenset("inc ltd co corp etc a.m p.m u.s u.k u.n d.c jr sr".split())
STARTERS = frozenset(
    "the a an in on at it he she they we i but and however this that these there his her".split()
)

# A full stop (with closing quotes or brackets), white space, then what may open a sentence.
BORDER = re.compile(r"""(?<=[.!?…])(["'”’)\]]*)\s+(?=["'“‘(\[]*[A-Z0-9À-ÖØ-Þ])""")
LAST_WORD = re.compile(r"([^\s\"'“”‘’()\[\]]+)\.$")
REACH = 24  # characters before a stop that may tell an abbreviation
INITIAL = re.compile(r"^[A-Z]$|^([A-Za-z]\.)+[A-Za-z]$")


def split_sentences(text: str) -> list[str]:
    """Sentences of a text, stripped, in order; an empty list for blank text."""
    sentences = []
    begin = 0
    for match in BORDER.finditer(text):
        end = match.end(1)
        before = text[max(begin, match.start() - REACH) : match.start()]
        if _is_abbreviation(before, text[match.end() : match.end() + 16]):
            continue
        sentences.append(text[begin:end].strip())
        begin = match.end()
    sentences.append(text[begin:].strip())
    return [sentence for sentence in sentences if sentence]


def _is_abbreviation(before: str, after: str) -> bool:
    """Whether the stop at the end of `before` belongs to an abbreviation or an initial.

    `before`: REACH characters at most, so that a text of nothing but "Mr. Mr. Mr." takes no longer.
    """
    match = LAST_WORD.search(before)
    if match is None:
        return False
    word = match[1]
    lower = word.lower()
    if lower in NUMBERED:
        return after[:1].isdigit()
    if lower in ABBREVIATIONS or INITIAL.match(word):
        if lower in AMBIGUOUS or (INITIAL.match(word) and len(word) > 1):
            first = re.match(r"[\W_]*(\w+)", after)
            return not (first and first[1].lower() in STARTERS and first[1][0].isupper())
        return True
    return False
