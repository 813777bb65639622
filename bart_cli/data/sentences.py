"""Split text into sentences by rules, losing nothing but white space.

Preprocessing, evaluation (ROUGE-Lsum) and the summarization of long documents share this splitter.
English has its own rules. All other languages share a set: sentence-final punctuation of any
script, a capital letter after a period where the script has capitals, and abbreviations by
language. `auto` chooses the rules by script and treats Latin letters as English.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from bart_cli.data.abbreviations import ABBREVIATIONS as FOREIGN
from bart_cli.data.abbreviations import ENDING, GERMAN_STARTERS
from bart_cli.data.words import UNSPACED

AUTO = "auto"
LONGEST = 2**16  # maximum characters of a sentence; bounds the memory for tokenizing it
SAME_RULES = {"nb": "no", "nn": "no", "be": "ru", "bg": "ru"}

# ---- English ------------------------------------------------------------------------------------

ABBREVIATIONS = frozenset(
    """
    mr mrs ms dr prof st sr jr rev hon gen col maj capt lt sgt gov sen rep pres supt det insp cmdr
    vs etc mt ft ph.d inc ltd co corp bros dept univ assn ave blvd rd al ca cf approx est
    jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thur thurs fri sat sun
    """.split()
)
# Abbreviations only before a number: "No. 5" is one sentence, "No. He left." is two.
NUMBERED = frozenset("no nos n° vol fig eq sec p pp ch art ext tel ver".split())
# Abbreviations that may also end a sentence, depending on the next word.
AMBIGUOUS = frozenset("inc ltd co corp etc ph.d ft jr sr".split())
STARTERS = frozenset(
    """
    the a an in on at it he she they we i you but and however this that these those there his her
    its our your their how what when where who why which do does did is are was were has have had
    can could will would if as for from by with after before while since then so some most many all
    """.split()
)
# A sentence continues after a time of day before these words, or if it contains only a time so far.
TIMES = frozenset({"a.m", "p.m"})
AFTER_TIME = frozenset(
    """
    monday tuesday wednesday thursday friday saturday sunday january february march april june july
    august september october november december et est edt ct cst cdt mt mst pt pst pdt gmt utc bst
    cet eastern central pacific mountain local
    """.split()
)
NAMES = ("Yahoo!", "Jeopardy!")  # their exclamation mark does not end a sentence

# Punctuation (with closing quotes or brackets), white space, then a possible start of a sentence.
# The pattern begins with a character class, which Python's `re` searches fast.
# Capital letters of Polish, Czech, Turkish, Vietnamese and other languages in Latin script.
CAPITALS = "".join(
    c for c in map(chr, [*range(0x100, 0x250), *range(0x1E00, 0x1F00)]) if c.isupper()
)
BOUNDARY = re.compile(rf"""[.!?…]["'”’)\]]*\s+(?=["'“‘(\[•⁃]*[A-Z0-9À-ÖØ-Þ{CAPITALS}])""")
# The label of a list item, and the number of characters before a period to search for one.
LABEL = re.compile(r"(?:^|\s)((?:[•⁃]\s*)?(\d{1,2}|[a-z]))\.$")
LABEL_REACH = 6
LAST_WORD = re.compile(r"([^\s\"'“”‘’()\[\]]+)\.$")
REACH = 24  # characters before a period that are examined for an abbreviation
INITIAL = re.compile(r"^[A-Z]$|^([A-Za-z]\.)+[A-Za-z]$")

# ---- other languages ----------------------------------------------------------------------------

ASCII = re.compile("[\0-\x7f]+")
LATIN = re.compile("[A-Za-zÀ-ÖØ-öø-ɏ]+")
# Letters of a script, and the language whose rules apply to it.
SCRIPTS = {
    "ru": re.compile("[\u0400-\u052f]+"),
    "el": re.compile("[\u0370-\u03ff\u1f00-\u1fff]+"),
    # Other scripts: Armenian to Myanmar and Ethiopic, Khmer, Chinese, Japanese, Korean.
    "": re.compile(
        "[\u0530-\u139f\u1780-\u18af\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3\U00020000-\U0003ffff]+"
    ),
}
SAMPLE = 4096  # characters from which the script of a text is detected
WIDE = "。｡！？．؟۔।॥։።፧။។៕"  # marks that end a sentence even without a space after them
MARKS = ".!?…;" + WIDE
# The pattern begins with a character class, which Python's `re` searches fast.
STOP = re.compile(
    rf"(?P<run>[{MARKS}\n][{MARKS}]*)"
    r"(?P<close>[\"'”’»›)\]“‘«」』》〉）】〕］]*(?:\s[»›])*)(?P<space>\s*)"
)
OPENERS = re.compile("[“‘«\"']")  # in `close`, after a mark of WIDE
UNSPACED_LETTER = re.compile(f"[{UNSPACED}]")
QUOTED = re.compile("と|って|、|。|，")  # after a closing quote, these continue the outer sentence
THAI = re.compile("[\u0e00-\u0eff]")
THAI_SPACE = re.compile("(?<=[\u0e00-\u0eff])\\s+(?=[\u0e00-\u0eff])")  # Lao too
PHRASES = 60  # characters after which the next space ends a Thai or Lao sentence
FIRST_LETTER = re.compile(r"[\W_]*(\w+)")
DUTCH_START = re.compile("['‘’][knst][ -](?=[A-Z])")  # "'s Avonds" begins a sentence
BEFORE_WORD = "\"'“”„«»‘’([—–-"
LETTERS = re.compile(r"([^\W\d_]{1,2}\.\s?)*[^\W\d_]")  # initials, "z. B", "т.е"
# Single letters that end a sentence before a capital: "5 h.", "1999 г.", "и т. д.", "до н. э."
LETTER_END = re.compile(r"(\d\s?[^\W\d_]|т\.\s?[дп]|н\.\s?э)$")


def split_sentences(text: str, language: str = AUTO) -> list[str]:
    """Split a text in a language (ISO 639-1 code) into sentences, stripped of white space."""
    return [sentence.strip() for sentence in _parts(text, language) if not sentence.isspace()]


def spaced_sentences(text: str, language: str = AUTO) -> list[str]:
    """Split a text into sentences whose concatenation is the text.

    Each sentence after the first begins with a single space if white space precedes it in the text
    (usually not in Chinese and Japanese). Sentences of more than LONGEST characters are cut, before
    a space if possible.
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
    """Choose the rules for a text by its script: "en", "ru", "el", or "" for other scripts."""
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
    """Yield the sentences of a text with the white space that follows them."""
    language = language_of(text) if language == AUTO else SAME_RULES.get(language, language)
    begin = 0
    for end in _english(text) if language == "en" else _other(text, language):
        yield text[begin:end]
        begin = end
    if begin < len(text):
        yield text[begin:]


def _english(text: str) -> Iterator[int]:
    begin = 0
    item = ""  # label of the next list item
    for match in BOUNDARY.finditer(text):
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
        if not _continues_in_english(text, begin, stop, end):
            begin = end
            yield begin


def _next_label(label: str) -> str:
    return str(int(label) + 1) if label.isdigit() else chr(ord(label) + 1)


def _continues_in_english(text: str, begin: int, stop: int, end: int) -> bool:
    """Whether the sentence that begins at `begin` continues after the mark before `stop`."""
    before = text[max(begin, stop - REACH) : stop]
    if before[-1] != ".":
        return before[-1] == "!" and before.endswith(NAMES) and not _starts(text, end)
    if before.endswith((" . . .", "[...")):
        return not before.endswith(". . . .")
    return _is_abbreviation(before, text[end : end + REACH], stop - begin < REACH)


def _starts(text: str, end: int) -> bool:
    """Whether a capitalized word that commonly starts sentences is at `end`."""
    first = FIRST_LETTER.match(text, end)
    return first is not None and first[1][0].isupper() and first[1].lower() in STARTERS


def _is_abbreviation(before: str, after: str, is_first: bool) -> bool:
    """Whether the period at the end of `before` belongs to an abbreviation or an initial.

    Args:
        before: at most REACH characters, which keeps the time linear for texts such as
            "Mr. Mr. Mr.".
        is_first: whether `before` begins the sentence.
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
        continues = is_first and len(before.split()) < 5 and word_after not in STARTERS
        return continues or after[0] == "(" or word_after in AFTER_TIME
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
        if is_common and end < size and _is_lower(text[end]):
            continue  # fast path for the most common case
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
    """Yield sentence boundaries in Thai or Lao text, which has no marks, only spaces."""
    if end - begin > PHRASES:
        for match in THAI_SPACE.finditer(text, begin, end):
            if match.start() - begin >= PHRASES:
                begin = match.end()
                yield begin


def _ends(text: str, begin: int, match: re.Match[str], language: str) -> bool:
    """Whether the sentence that begins at `begin` ends at a match of STOP."""
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
    return not _continues(before, run, after, language)


def _is_lower(char: str) -> bool:
    """Whether a letter does not begin a sentence; Georgian is written without capitals."""
    return char.islower() and not "\u10d0" <= char <= "\u10ff"


def _continues(before: str, mark: str, after: str, language: str) -> bool:
    """Whether the sentence continues after a mark and a space."""
    if mark[-1] == ";" and language != "el":
        return True
    if not (after[:1].isupper() or (language == "nl" and DUTCH_START.match(after))):
        first = FIRST_LETTER.match(after)
        if first is not None and _is_lower(first[1][0]):
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
            return True  # the number of a list item
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
