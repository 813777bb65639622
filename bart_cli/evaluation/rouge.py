"""ROUGE (Lin 2004), computed with the `rouge-score` package.

Words are runs of a-z and 0-9, as in `rouge-score`, or words of any script: runs of letters and
digits, or single characters in scripts without spaces.

ROUGE-Lsum compares sentence by sentence. Predictions and references are split in the same way: at
line breaks (as in CNN-DailyMail's highlights), and then by our sentence splitter.
"""

import re
import sys
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np

from bart_cli.config.generation import ROUGE, EvaluationConfig, RougeTokenizer
from bart_cli.data.sentences import AUTO, split_sentences
from bart_cli.data.words import UNSPACED
from bart_cli.runtime.workers import worker_processes

KINDS = tuple(ROUGE)
CHUNK = 250  # pairs that one worker scores at a time
ASCII_WORD = re.compile("[a-zA-Z0-9]+")


@dataclass(frozen=True)
class RougeScores:
    """F1 scores in percent, by metric."""

    mean: dict[str, float]  # mean over pairs
    each: dict[str, list[float]]  # score of each pair
    interval: dict[str, tuple[float, float]]  # 95% bootstrap confidence interval of the mean


def score_systems(
    systems: Mapping[str, Sequence[str]],
    references: Sequence[str | Sequence[str]],
    settings: EvaluationConfig,
    *,
    bootstrap: int = 0,
    workers: int = 1,
    advance: Callable[[int], None] = lambda pairs: None,
) -> dict[str, RougeScores]:
    """Compute ROUGE-1/2/L/Lsum of several systems on the same articles.

    Args:
        systems: name -> summaries of all articles.
        references: one or more for each article; for several, the best F1 of each metric counts.
        settings: stemmer, tokenizer (see the docstring of this module) and language of the
            sentence splitter for ROUGE-Lsum.
        bootstrap: number of resamples for the confidence intervals; 0: none.
        workers: number of processes; 1: score in this process.
        advance: called with the number of pairs scored since the last call.
    """
    pairs = [
        pair
        for predictions in systems.values()
        for pair in zip(predictions, references, strict=True)
    ]
    chunks = [pairs[i : i + CHUNK] for i in range(0, len(pairs), CHUNK)]
    scored = [np.zeros((0, len(KINDS)))]
    with ExitStack() as stack:
        mapping: Any = map
        if workers > 1 and len(chunks) > 1:
            mapping = stack.enter_context(worker_processes(min(workers, len(chunks)))).map
        for table in mapping(partial(_score_chunk, settings), chunks):
            scored.append(table)
            advance(len(table))
    tables = np.split(np.concatenate(scored), len(systems))
    return {
        name: RougeScores(
            mean={kind: float(table[:, i].mean()) for i, kind in enumerate(KINDS)},
            each={kind: table[:, i].tolist() for i, kind in enumerate(KINDS)},
            interval=_intervals(table, bootstrap),
        )
        for name, table in zip(systems, tables, strict=True)
    }


def as_sentences(summary: str, language: str = AUTO) -> str:
    """Put each sentence of a text on its own line, as required for ROUGE-Lsum."""
    lines = [line.strip() for line in summary.splitlines() if line.strip()]
    return "\n".join(sentence for line in lines for sentence in split_sentences(line, language))


@cache
def word_pattern(tokenizer: RougeTokenizer) -> re.Pattern[str]:
    if tokenizer == "ascii":
        return ASCII_WORD
    # Combining marks (vowel signs, accents) belong to the preceding letter; \\w excludes them.
    points = range(sys.maxunicode + 1)
    marks = "".join(chr(c) for c in points if unicodedata.category(chr(c))[0] == "M")
    return re.compile(f"[{UNSPACED}][{marks}]*|(?:(?![{UNSPACED}])[^\\W_][{marks}]*)+")


def normal_form(word: str, *, stemmer: bool) -> str:
    lower = unicodedata.normalize("NFKC", word).lower()
    if not (stemmer and len(lower) > 3 and lower.isascii()):
        return lower
    from nltk.stem.porter import PorterStemmer

    return PorterStemmer().stem(lower)


def share_without_words(references: Sequence[str]) -> float:
    """Return the share of references that lose more than half of their letters as ASCII words."""
    lost = 0
    for text in references:
        kept = sum(map(len, ASCII_WORD.findall(text)))
        lost += 2 * kept < sum(map(str.isalnum, text))
    return lost / max(len(references), 1)


@dataclass(frozen=True)
class _AnyScript:
    """Tokenizer for `rouge-score` that finds words of any script."""

    stemmer: bool

    def tokenize(self, text: str) -> list[str]:
        words = word_pattern("unicode").findall(text)
        return [normal_form(word, stemmer=self.stemmer) for word in words]


def _score_chunk(
    settings: EvaluationConfig, pairs: list[tuple[str, str | Sequence[str]]]
) -> np.ndarray:
    from rouge_score.rouge_scorer import RougeScorer

    language = settings.language
    words = _AnyScript(settings.stemmer) if settings.tokenizer == "unicode" else None
    scorer = RougeScorer(list(KINDS), use_stemmer=settings.stemmer, tokenizer=words)
    rows = []
    for prediction, reference in pairs:
        group = [reference] if isinstance(reference, str) else reference
        scores = scorer.score_multi(
            [as_sentences(text, language) for text in group], as_sentences(prediction, language)
        )
        rows.append([100 * scores[kind].fmeasure for kind in KINDS])
    return np.array(rows)


def _intervals(table: np.ndarray, resamples: int) -> dict[str, tuple[float, float]]:
    """Compute bootstrap percentile intervals (Efron 1979) of the means, with a fixed seed."""
    if not resamples or not len(table):
        return {}
    generator = np.random.default_rng(0)
    means = np.stack(
        [table[generator.integers(0, len(table), len(table))].mean(0) for _ in range(resamples)]
    )
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    return {kind: (float(low[i]), float(high[i])) for i, kind in enumerate(KINDS)}
