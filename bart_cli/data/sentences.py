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
    vs etc mt ft ph.d inc ltd co corp bros dept univ assn ave blvd rd al ca cf approx est
    jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thur thurs fri sat sun
    e.g i.e a.m p.m u.s u.k u.n e.u d.c
    """.split()
)
# Before a number only: "No. 5" goes on, "No. He left." does not.
NUMBERED = frozenset("no nos n° vol fig eq sec p pp ch art ext tel ver".split())
# These may also end a sentence; the next word decides.
AMBIGUOUS = frozenset("inc ltd co corp etc ph.d ft u.s u.k u.n e.u d.c jr sr".split())
STARTERS = frozenset(
    """
    the a an in on at it he she they we i you but and however this that these those there his her
    its our your their how what when where who why which do does did is are was were has have had
    can could will would if as for from by with after before while since then so some most many all
    """.split()
)
# Behind a time of the day the sentence goes on with these, or when only words of time come before.
TIMES = frozenset({"a.m", "p.m"})
AFTER_TIME = frozenset(
    """
    monday tuesday wednesday thursday friday saturday sunday january february march april june july
    august september october november december et est edt ct cst cdt mt mst pt pst pdt gmt utc bst
    cet eastern central pacific mountain local
    """.split()
)
NAMES = ("Yahoo!", "Jeopardy!")  # whose mark is no end of a sentence

# A full stop (with closing quotes or brackets), white space, then what may open a sentence.
# The mark first: Python's `re` finds a leading class of characters fast.
BORDER = re.compile(r"""[.!?…]["'”’)\]]*\s+(?=["'“‘(\[•⁃]*[A-Z0-9À-ÖØ-Þ])""")
# The label of an item of a list, and the characters before a stop that may hold one.
LABEL = re.compile(r"(?:^|\s)((?:[•⁃]\s*)?(\d{1,2}|[a-z]))\.$")
LABEL_REACH = 6
LAST_WORD = re.compile(r"([^\s\"'“”‘’()\[\]]+)\.$")
REACH = 24  # characters before a stop that may tell an abbreviation
INITIAL = re.compile(r"^[A-Z]$|^([A-Za-z]\.)+[A-Za-z]$")

# ---- other languages ----------------------------------------------------------------------------

ASCII = re.compile("[\0-\x7f]+")
LATIN = re.compile("[A-Za-zÀ-ÖØ-öø-ɏ]+")
# Runs of letters of a script, and the language whose rules its text is split by.
SCRIPTS = {
    "ru": re.compile("[\u0400-\u052f]+"),
    "el": re.compile("[\u0370-\u03ff\u1f00-\u1fff]+"),
    # All others: Armenian to Myanmar and Ethiopic, Khmer, Chinese, Japanese, Korean.
    "": re.compile(
        "[\u0530-\u139f\u1780-\u18af\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3\U00020000-\U0003ffff]+"
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
THAI = re.compile("[\u0e00-\u0eff]")
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
    wide = ASCII.sub("", sample)
    counts = {code: _letters(pattern, wide) for code, pattern in SCRIPTS.items()}
    best = max(counts, key=counts.__getitem__)
    if not counts[best]:
        return "en"
    return best if counts[best] * 2 > _letters(LATIN, sample) else "en"


def _letters(runs: re.Pattern[str], text: str) -> int:
    return sum(map(len, runs.findall(text)))


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
    item = ""  # the label that the next item of a list has
    for match in BORDER.finditer(text):
        stop, end = match.start() + 1, match.end()
        if item or stop - begin <= LABEL_REACH:
            label = LABEL.search(text, max(begin - 1, stop - LABEL_REACH, 0), stop)
            if label is not None and label.start(1) == begin:
                item = _next_label(label[2])
                continue
            if label is not None and label[2] == item:
                begin, item = label.start(1), _next_label(item)
                yield begin
                continue
        if not _goes_on_in_english(text, begin, stop, end):
            begin = end
            yield begin


def _next_label(label: str) -> str:
    return str(int(label) + 1) if label.isdigit() else chr(ord(label) + 1)


def _goes_on_in_english(text: str, begin: int, stop: int, end: int) -> bool:
    """Whether the sentence from `begin` on goes on behind the mark before `stop`."""
    before = text[max(begin, stop - REACH) : stop]
    if before[-1] != ".":
        return before[-1] == "!" and before.endswith(NAMES) and not _starts(text, end)
    if before.endswith((" . . .", "[...")):
        return not before.endswith(". . . .")
    return _is_abbreviation(before, text[end : end + REACH], stop - begin < REACH)


def _starts(text: str, end: int) -> bool:
    """Whether a word that opens sentences, with a capital, is at `end`."""
    first = FIRST_LETTER.match(text, end)
    return first is not None and first[1][0].isupper() and first[1].lower() in STARTERS


def _is_abbreviation(before: str, after: str, is_first: bool) -> bool:
    """Whether the stop at the end of `before` belongs to an abbreviation or an initial.

    Args:
        before: REACH characters at most, so that a text of nothing but "Mr. Mr. Mr." takes no
            longer.
        is_first: `before` is the beginning of the sentence.
    """
    match = LAST_WORD.search(before)
    if match is None:
        return False
    word = match[1]
    lower = word.lower()
    if lower in NUMBERED and not INITIAL.match(word):
        return after[:1].isdigit()
    if lower in TIMES:
        first = FIRST_LETTER.match(after)
        word_after = first[1].lower() if first and first[1][0].isupper() else ""
        goes_on = is_first and len(before.split()) < 5 and word_after not in STARTERS
        return goes_on or after[0] == "(" or word_after in AFTER_TIME
    if word == "I":  # "you and I. Have" ends, "Robert I. Hale" does not
        words = before.split()
        return len(words) > 1 and not words[-2][0].islower()
    if lower in ABBREVIATIONS or INITIAL.match(word):
        is_ambiguous = lower in AMBIGUOUS or (INITIAL.match(word) and len(word) > 1)
        return not (is_ambiguous and _starts(after, 0))
    return False


def _other(text: str, language: str) -> Iterator[int]:
    begin, size = 0, len(text)
    has_phrases = THAI.search(text) is not None
    for match in STOP.finditer(text):
        run, close, space = match.groups()
        end = match.end()
        is_common = space == " " and run != "\n" and run[-1] not in WIDE
        if is_common and end < size and text[end].islower():
            continue  # nothing else needs a look
        if _ends(text, begin, match, language):
            if run[-1] in WIDE and (opener := OPENERS.search(close)):
                end = match.start("close") + opener.start()
            if has_phrases:
                yield from _phrases(text, begin, end)
            begin = end
            if end < size:
                yield end
    if has_phrases:
        yield from _phrases(text, begin, size)


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
    if not after[:1].isupper():
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
        if language != "de" or len(known) > 2 or not after[:1].isalpha():
            return False
        first = FIRST_LETTER.match(after)
        return first is not None and first[1].lower() not in GERMAN_STARTERS
    if (len(known) == 1 or known[:1].isdigit() or "." in known) and LETTER_END.search(before):
        return False
    if lower in FOREIGN.get(language, ()) or lower in FOREIGN[""]:
        first = FIRST_LETTER.match(after)
        return not (lower in ENDING.get(language, ()) and first and first[1][0].isupper())
    return LETTERS.fullmatch(known) is not None and (known[0].isupper() or len(known) < 6)
