"""Sentence splitting by rules: one text in, its sentences out, no character but white space lost.

One splitter serves pre-processing, evaluation (ROUGE-Lsum) and the summaries of long documents.
English has rules of its own. All other languages share theirs: marks that end a sentence in any
script, a capital letter behind a full stop where the script has capitals, and abbreviations by
language. `auto` goes by the script and takes Latin letters for English.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from bart_cli.data.abbreviations import ABBREVIATIONS as FOREIGN
from bart_cli.data.abbreviations import ENDING, GERMAN_STARTERS
from bart_cli.data.words import UNSPACED

AUTO = "auto"
LONGEST = 2**16  # characters of a sentence: bounds the memory of tokenizing it
SAME_RULES = {"nb": "no", "nn": "no", "be": "ru", "bg": "ru"}

# ---- English ------------------------------------------------------------------------------------

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

# ---- other languages ----------------------------------------------------------------------------

LATIN = "A-Za-zÀ-ÖØ-öø-ɏ"
# Letters of a script, and the language whose rules its text is split by.
SCRIPTS = {
    "ru": re.compile("[\u0400-\u052f]"),
    "el": re.compile("[\u0370-\u03ff\u1f00-\u1fff]"),
    # All others: Armenian to Myanmar and Ethiopic, Khmer, Chinese, Japanese, Korean.
    "": re.compile(
        "[\u0530-\u139f\u1780-\u18af\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3\U00020000-\U0003ffff]"
    ),
}
SAMPLE = 4096  # characters that tell the script of a text
WIDE = "。｡！？．؟۔।॥։።፧။។៕"  # marks that end a sentence without a space behind them
MARKS = ".!?…;" + WIDE
# A mark or the end of a line first: Python's `re` finds a leading class of characters fast.
STOP = re.compile(
    rf"(?P<run>[{MARKS}\n][{MARKS}]*)"
    r"(?P<close>[\"'”’»›)\]“‘«」』》〉）】〕］]*(?:\s[»›])*)(?P<space>\s*)"
)
OPENERS = re.compile("[“‘«\"']")  # in `close`, behind a mark of WIDE
UNSPACED_LETTER = re.compile(f"[{UNSPACED}]")
QUOTED = re.compile("と|って|、|。|，")  # behind a closing quote, the sentence around it goes on
THAI_SPACE = re.compile("(?<=[\u0e00-\u0eff])\\s+(?=[\u0e00-\u0eff])")  # Lao too
PHRASES = 60  # characters of a Thai or Lao sentence, after which the next space ends it
FIRST_LETTER = re.compile(r"[\W_]*(\w+)")
BEFORE_WORD = "\"'“”„«»‘’([—–-"
LETTERS = re.compile(r"([^\W\d_]{1,2}\.\s?)*[^\W\d_]")  # initials, "z. B", "т.е"
# Single letters that do end a sentence before a capital: "5 h.", "1999 г.", "и т. д.", "до н. э."
LETTER_END = re.compile(r"(\d\s?[^\W\d_]|т\.\s?[дп]|н\.\s?э)$")


def split_sentences(text: str, language: str = AUTO) -> list[str]:
    """Sentences of a text, stripped, in order; an empty list for blank text.

    Args:
        language: code of ISO 639-1, or `auto`.
    """
    return [sentence.strip() for sentence in _parts(text, language) if not sentence.isspace()]


def spaced_sentences(text: str, language: str = AUTO) -> list[str]:
    """Sentences that give the text when joined: each after the first keeps one space before it.

    Chinese and Japanese have none between sentences, and get none. What is longer than LONGEST
    characters is cut, before a space if there is one.
    """
    sentences: list[str] = []
    space = ""
    for part in _parts(text, language):
        stripped = part.strip()
        if part[0].isspace():
            space = " "
        if stripped:
            sentence = f"{space}{stripped}" if sentences else stripped
            begin = 0
            while len(sentence) - begin > LONGEST:
                end = sentence.rfind(" ", begin + 1, begin + LONGEST)
                end = begin + LONGEST if end < 0 else end
                sentences.append(sentence[begin:end])
                begin = end
            sentences.append(sentence[begin:])
            space = " " if part[-1].isspace() else ""
    return sentences


def language_of(text: str) -> str:
    """The rules for a text of unknown language: `en`, `ru`, `el`, or none of these."""
    if text.isascii():
        return "en"
    sample = text[:SAMPLE]
    counts = {code: len(letters.findall(sample)) for code, letters in SCRIPTS.items()}
    best = max(counts, key=counts.__getitem__)
    latin = len(re.findall(f"[{LATIN}]", sample))
    return best if counts[best] * 2 > latin else "en"


def _parts(text: str, language: str) -> Iterator[str]:
    """The text cut behind the white space that follows each sentence."""
    language = language_of(text) if language == AUTO else SAME_RULES.get(language, language)
    begin = 0
    for end in _english(text) if language == "en" else _other(text, language):
        yield text[begin:end]
        begin = end
    if begin < len(text):
        yield text[begin:]


def _english(text: str) -> Iterator[int]:
    begin = 0
    for match in BORDER.finditer(text):
        before = text[max(begin, match.start() - REACH) : match.start()]
        if not _is_abbreviation(before, text[match.end() : match.end() + 16]):
            begin = match.end()
            yield begin


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
            first = FIRST_LETTER.match(after)
            return not (first and first[1].lower() in STARTERS and first[1][0].isupper())
        return True
    return False


def _other(text: str, language: str) -> Iterator[int]:
    begin = 0
    for match in STOP.finditer(text):
        end = match.end()
        if _ends(text, begin, match, language):
            if match["run"][-1] in WIDE and (opener := OPENERS.search(match["close"])):
                end = match.start("close") + opener.start()
            yield from _phrases(text, begin, end)
            begin = end
            if end < len(text):
                yield end
    yield from _phrases(text, begin, len(text))


def _phrases(text: str, begin: int, end: int) -> Iterator[int]:
    """Borders within what is Thai or Lao, where only spaces part sentences."""
    if end - begin > PHRASES:
        for match in THAI_SPACE.finditer(text, begin, end):
            if match.start() - begin >= PHRASES:
                begin = match.end()
                yield begin


def _ends(text: str, begin: int, match: re.Match[str], language: str) -> bool:
    """Whether the sentence from `begin` on ends with what STOP found."""
    run, close, space = match.groups()
    if "\n" in space and (run == "\n" or space.count("\n") > 1):
        return True  # a blank line
    if run == "\n":
        return False
    after = text[match.end() : match.end() + REACH]
    if run[-1] in WIDE:
        return close[-1:] not in ("」", "』") or QUOTED.match(after) is None
    if not space:
        return run[-1] in "!?" and not close and UNSPACED_LETTER.match(after) is not None
    before = text[max(begin, match.start() - REACH) : match.start()]
    return not _goes_on(before, run, after, language)


def _goes_on(before: str, mark: str, after: str, language: str) -> bool:
    """Whether the sentence goes on behind a mark and a space."""
    if mark[-1] == ";" and language != "el":
        return True
    first = FIRST_LETTER.match(after)
    if first is not None and first[1][0].islower():
        return True
    if mark != ".":
        return False
    words = before.split()
    if not words:
        return False
    known = words[-1].lstrip(BEFORE_WORD)
    lower = known.lower()
    if known.isdigit():
        if len(words) == 1:
            return True  # the number of an item
        ordinal = language == "de" and len(known) < 3 and after[:1].isalpha()
        return ordinal and first is not None and first[1].lower() not in GERMAN_STARTERS
    if len(known) < 6 and LETTER_END.search(before):
        return False
    if lower in FOREIGN.get(language, ()) or lower in FOREIGN[""]:
        is_end = lower in ENDING.get(language, ()) and first is not None and first[1][0].isupper()
        return not is_end
    return LETTERS.fullmatch(known) is not None and (known[0].isupper() or len(known) < 6)
