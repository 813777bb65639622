"""Compare a summary with its article: novelty, compression, repetition, coverage.

In: articles and summaries in any script. Out: the measures of each summary, None if undefined (a
summary of two words has no trigrams), and its names and numbers that are not in the article.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from bart_cli.data.sentences import AUTO, split_sentences
from bart_cli.evaluation.rouge import word_pattern

ORDERS = (1, 2, 3, 4)  # of n-grams
Measures = dict[str, float | None]

# Digits with separators; the groups decide what the separators mean.
NUMBER = re.compile(r"\d+(?:[.,٫٬'’\u00a0\u2009\u202f]\d+)*")
# 1,200, 1,00,000 and 1’200’000.5; a single point is a decimal point, unlike those in 1.200.000.
GROUPED = re.compile(r"(\d{1,3}(?:[,٬'’\u00a0\u2009\u202f]\d{2,3})*[,٬'’\u00a0\u2009\u202f]\d{3})"
                     r"(?:[.٫](\d+))?")  # fmt: skip
POINTED = re.compile(r"(\d{1,3}(?:\.\d{3}){2,})(?:,(\d+))?")
DECIMAL = re.compile(r"(\d+)[.,٫](\d+)")
# Between the words of one name: "J. K. Rowling", "Jean-Claude", "O'Neill".
LINK = re.compile(r"\.?[ \u00a0]|[-‐‑'’.]")


@dataclass(frozen=True)
class Content:
    """The measures of one summary, and its numbers and names that are not in the article."""

    measures: Measures
    numbers: list[str]
    names: list[str]


def measure(
    articles: Sequence[str], summaries: Sequence[str], wanted: Iterable[str], language: str = AUTO
) -> list[Content]:
    """Compare each summary with its article.

    Args:
        wanted: measures to compute: novelty, compression, repetition, coverage.
        language: language of the sentence splitter; see `split_sentences`.
    """
    wanted = set(wanted)
    common = _common_words(articles) if "coverage" in wanted else set()
    return [
        _measure(article, summary, wanted, common, language)
        for article, summary in zip(articles, summaries, strict=True)
    ]


def numbers_in(text: str) -> dict[str, str]:
    """Find the numbers written in digits: normalized value -> first spelling.

    1,200 and 1200 have the same value, as do 2.50 and 2.5.
    """
    found: dict[str, str] = {}
    for match in NUMBER.finditer(text):
        for value, written in _values(match[0]):
            found.setdefault(value, written)
    return found


def _measure(
    article: str, summary: str, wanted: set[str], common: set[str], language: str
) -> Content:
    pattern = word_pattern("unicode")
    source = [_plain(word) for word in pattern.findall(article)]
    words = [_plain(word) for word in pattern.findall(summary)]
    measures: Measures = {}
    for n in ORDERS:
        grams = list(_ngrams(words, n))
        if "novelty" in wanted:
            known = set(_ngrams(source, n))
            novel = sum(gram not in known for gram in grams)
            measures[f"novelty_{n}"] = _percent(novel, len(grams))
        if "repetition" in wanted:
            measures[f"repetition_{n}"] = _percent(len(grams) - len(set(grams)), len(grams))
    if "compression" in wanted:
        measures["compression"] = len(source) / len(words) if words else None
    numbers: list[str] = []
    names: list[str] = []
    if "coverage" in wanted:
        stated, known_numbers = numbers_in(summary), numbers_in(article)
        numbers = [written for value, written in stated.items() if value not in known_numbers]
        measures["numbers_covered"] = _percent(len(stated) - len(numbers), len(stated))
        spans = _names(summary, common, language)
        text = f" {' '.join(source)} "
        names = [name for name, parts in spans.items() if not _is_covered(parts, text, common)]
        measures["names_covered"] = _percent(len(spans) - len(names), len(spans))
    return Content(measures, numbers, names)


def _plain(word: str) -> str:
    return unicodedata.normalize("NFKC", word).casefold()


def _ngrams(words: Sequence[str], n: int) -> Iterator[tuple[str, ...]]:
    return zip(*(words[i:] for i in range(n)), strict=False)


def _percent(part: int, whole: int) -> float | None:
    return 100 * part / whole if whole else None


def _values(run: str) -> list[tuple[str, str]]:
    """Parse a run of digits and separators into (value, spelling) of each number."""
    for form in (GROUPED, POINTED, DECIMAL):
        if match := form.fullmatch(run):
            whole, fraction = match[1], match[2] or ""
            return [(_value(re.sub(r"\D", "", whole), fraction), run)]
    return [(_value(digits), digits) for digits in re.findall(r"\d+", run)]


def _value(whole: str, fraction: str = "") -> str:
    """Normalize digits of any script to ASCII, without redundant zeros."""
    whole, fraction = (
        "".join(str(unicodedata.decimal(c)) for c in part) for part in (whole, fraction)
    )
    fraction = fraction.rstrip("0")
    return (whole.lstrip("0") or "0") + (f".{fraction}" if fraction else "")


def _common_words(articles: Sequence[str]) -> set[str]:
    """Collect the words that occur in lower case in some article: they are not names."""
    pattern = word_pattern("unicode")
    return {
        _plain(word) for article in articles for word in pattern.findall(article) if word.islower()
    }


def _names(summary: str, common: set[str], language: str) -> dict[str, list[str]]:
    """Find spans of capitalized words: spelling -> normalized words.

    The first word of a sentence starts a name unless it is a common word.
    """
    pattern = word_pattern("unicode")
    found: dict[str, list[str]] = {}
    for line in summary.splitlines():
        for sentence in split_sentences(line, language):
            spans: list[list[re.Match[str]]] = []
            for number, match in enumerate(pattern.finditer(sentence)):
                first = match[0][0]
                if not (first.isupper() or unicodedata.category(first) == "Lt"):
                    continue
                if number == 0 and _plain(match[0]) in common:
                    continue
                if spans and LINK.fullmatch(sentence, spans[-1][-1].end(), match.start()):
                    spans[-1].append(match)
                else:
                    spans.append([match])
            for span in spans:
                name = sentence[span[0].start() : span[-1].end()]
                if len(name) > 1:  # not the pronoun "I"
                    found.setdefault(name, [_plain(match[0]) for match in span])
    return found


def _is_covered(parts: list[str], text: str, common: set[str]) -> bool:
    """Return whether the article contains the name, except for titles before or after it."""

    def has(words: Sequence[str]) -> bool:
        return f" {' '.join(words)} " in text

    if has(parts):
        return True
    begin, end = 0, len(parts)
    while begin < end and parts[begin] in common:
        begin += 1
    while begin < end and parts[end - 1] in common:
        end -= 1
    if begin == end:  # "Prime Minister"
        return all(has([word]) for word in parts)
    return has(parts[begin:end])
