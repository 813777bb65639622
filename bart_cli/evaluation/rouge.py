"""ROUGE (Lin 2004) by the `rouge-score` package, with one sentence splitter for both sides.

Words are what `rouge-score` takes for them, runs of a-z and 0-9, or words of any script: runs of
letters and digits, single characters where a script has no spaces.

ROUGE-Lsum compares sentence by sentence. Summaries with line breaks (CNN-DailyMail's highlights)
are split there, others by our sentence splitter; predictions and references by the same rule.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from bart_cli.config.generation import RougeTokenizer
from bart_cli.data.sentences import AUTO, split_sentences
from bart_cli.data.words import UNSPACED
from bart_cli.runtime.workers import worker_processes

KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
CHUNK = 250  # pairs that one worker scores at a time
ASCII_WORD = re.compile("[a-zA-Z0-9]+")


@dataclass(frozen=True)
class RougeScores:
    """F1 in percent.

    mean: by kind. each: by kind, one number per pair. interval: 95% bootstrap, by kind.
    """

    mean: dict[str, float]
    each: dict[str, list[float]]
    interval: dict[str, tuple[float, float]]


def rouge_scores(
    predictions: Sequence[str],
    references: Sequence[str | Sequence[str]],
    *,
    stemmer: bool = True,
    tokenizer: RougeTokenizer = "ascii",
    language: str = AUTO,
    bootstrap: int = 0,
    workers: int = 1,
) -> RougeScores:
    """ROUGE-1/2/L/Lsum of the predictions of one system; see `score_systems`."""
    return score_systems(
        {"": predictions},
        references,
        stemmer=stemmer,
        tokenizer=tokenizer,
        language=language,
        bootstrap=bootstrap,
        workers=workers,
    )[""]


def score_systems(
    systems: Mapping[str, Sequence[str]],
    references: Sequence[str | Sequence[str]],
    *,
    stemmer: bool = True,
    tokenizer: RougeTokenizer = "ascii",
    language: str = AUTO,
    bootstrap: int = 0,
    workers: int = 1,
    advance: Callable[[int], None] = lambda pairs: None,
) -> dict[str, RougeScores]:
    """ROUGE-1/2/L/Lsum of several systems' summaries of the same articles.

    Args:
        systems: name -> a summary for each reference.
        references: one of each article, or several: then the best F1 by kind counts.
        stemmer: Porter stemming before words are compared.
        tokenizer: which words there are, see the top of the file.
        language: whose rules split summaries into sentences, for ROUGE-Lsum.
        bootstrap: resamples for the confidence intervals; 0: none.
        workers: processes; 1 scores here.
        advance: told how many pairs more are scored.
    """
    pairs = [
        pair
        for predictions in systems.values()
        for pair in zip(predictions, references, strict=True)
    ]
    chunks = [pairs[i : i + CHUNK] for i in range(0, len(pairs), CHUNK)]
    score = partial(_score_chunk, stemmer=stemmer, tokenizer=tokenizer, language=language)
    if workers > 1 and len(chunks) > 1:
        with worker_processes(min(workers, len(chunks))) as pool:
            scored = _collect(pool.map(score, chunks), advance)
    else:
        scored = _collect(map(score, chunks), advance)
    tables = np.concatenate(scored) if scored else np.zeros((0, len(KINDS)))
    size = len(references)
    return {
        name: _summarize(tables[size * i : size * (i + 1)], bootstrap)
        for i, name in enumerate(systems)
    }


def as_sentences(summary: str, language: str = AUTO) -> str:
    """The same text with one sentence a line, as ROUGE-Lsum wants it."""
    lines = [line.strip() for line in summary.splitlines() if line.strip()]
    return "\n".join(sentence for line in lines for sentence in split_sentences(line, language))


@cache
def word_pattern(tokenizer: RougeTokenizer) -> re.Pattern[str]:
    """What is a word."""
    if tokenizer == "ascii":
        return ASCII_WORD
    # Marks (vowel signs, accents) belong to the letter before; Python's \\w lacks them.
    points = range(sys.maxunicode + 1)
    marks = "".join(chr(c) for c in points if unicodedata.category(chr(c))[0] == "M")
    return re.compile(f"[{UNSPACED}][{marks}]*|(?:(?![{UNSPACED}])[^\\W_][{marks}]*)+")


def normal_form(word: str, *, stemmer: bool) -> str:
    """A word as ROUGE compares it."""
    lower = unicodedata.normalize("NFKC", word).lower()
    if not (stemmer and len(lower) > 3 and lower.isascii()):
        return lower
    from nltk.stem.porter import PorterStemmer

    return PorterStemmer().stem(lower)


def share_without_words(references: Sequence[str]) -> float:
    """Share of the references of which the ASCII tokenizer drops more than half of the letters."""
    lost = 0
    for text in references:
        kept = sum(map(len, ASCII_WORD.findall(text)))
        lost += 2 * kept < sum(map(str.isalnum, text))
    return lost / max(len(references), 1)


@dataclass(frozen=True)
class _AnyScript:
    """A tokenizer for `rouge-score`: words of any script."""

    stemmer: bool

    def tokenize(self, text: str) -> list[str]:
        words = word_pattern("unicode").findall(text)
        return [normal_form(word, stemmer=self.stemmer) for word in words]


def _collect(tables: Iterable[np.ndarray], advance: Callable[[int], None]) -> list[np.ndarray]:
    collected = []
    for table in tables:
        collected.append(table)
        advance(len(table))
    return collected


def _score_chunk(
    pairs: list[tuple[str, str | Sequence[str]]],
    stemmer: bool,
    tokenizer: RougeTokenizer,
    language: str,
) -> np.ndarray:
    from rouge_score.rouge_scorer import RougeScorer

    words = _AnyScript(stemmer) if tokenizer == "unicode" else None
    scorer = RougeScorer(list(KINDS), use_stemmer=stemmer, tokenizer=words)
    rows = []
    for prediction, reference in pairs:
        group = [reference] if isinstance(reference, str) else reference
        scores = scorer.score_multi(
            [as_sentences(text, language) for text in group], as_sentences(prediction, language)
        )
        rows.append([100 * scores[kind].fmeasure for kind in KINDS])
    return np.array(rows)


def _summarize(table: np.ndarray, bootstrap: int) -> RougeScores:
    return RougeScores(
        mean={kind: float(table[:, i].mean()) for i, kind in enumerate(KINDS)},
        each={kind: table[:, i].tolist() for i, kind in enumerate(KINDS)},
        interval=_intervals(table, bootstrap),
    )


def _intervals(table: np.ndarray, resamples: int) -> dict[str, tuple[float, float]]:
    """Percentiles of the means of resampled pairs (Efron 1979); the same for the same table."""
    if not resamples or not len(table):
        return {}
    generator = np.random.default_rng(0)
    means = np.stack(
        [table[generator.integers(0, len(table), len(table))].mean(0) for _ in range(resamples)]
    )
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    return {kind: (float(low[i]), float(high[i])) for i, kind in enumerate(KINDS)}
