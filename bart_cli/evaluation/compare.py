"""`bart compare`: test whether one file of predictions is significantly better than another.

Paired bootstrap (Koehn 2004): resample the articles with replacement and score both systems on each
resample. The p-value is the share of resamples in which the better system is not ahead.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bart_cli.config.generation import EvaluationConfig
from bart_cli.errors import UsageError
from bart_cli.evaluation.predictions import Predictions
from bart_cli.evaluation.rouge import KINDS, score_systems
from bart_cli.runtime.cores import usable_cores

# (sum of the statistics of the articles, number of articles) -> metric.
Score = Callable[[NDArray[Any], int], float]


@dataclass(frozen=True)
class Comparison:
    """One metric of both systems."""

    metric: str
    a: float
    b: float
    difference: float  # b - a
    interval: tuple[float, float]  # 95% bootstrap confidence interval of the difference
    p: float  # share of resamples in which the better system is not ahead


def compare_predictions(
    a: list[str],
    b: list[str],
    references: Sequence[Sequence[str]],
    settings: EvaluationConfig,
    *,
    seed: int = 0,
) -> list[Comparison]:
    """Compare two systems by ROUGE and optionally BLEU; all metrics use the same resamples.

    Args:
        a, b: summaries of the same articles.
        references: one or more for each article.
        settings: settings of ROUGE, whether to compute BLEU, and the number of resamples.
    """
    systems = {"a": a, "b": b}
    scored = score_systems(systems, references, settings, workers=usable_cores())
    resamples = settings.bootstrap
    results = []
    for kind in KINDS:
        tables = [np.array([scored[name].each[kind]]).T for name in systems]
        results.append(_paired_bootstrap(kind, tables, _mean, resamples, seed))
    if settings.bleu:
        from sacrebleu.metrics.bleu import BLEU

        metric = BLEU()
        columns: Any = reference_columns(references)  # sacrebleu's annotation has no None
        tables = [np.array(metric._extract_corpus_statistics(texts, columns)) for texts in (a, b)]

        def bleu(total: NDArray[Any], count: int) -> float:
            return float(metric._compute_score_from_stats(total.tolist()).score)

        results.append(_paired_bootstrap("bleu", tables, bleu, resamples, seed))
    return results


def _paired_bootstrap(
    metric: str, tables: Sequence[NDArray[Any]], score: Score, resamples: int, seed: int
) -> Comparison:
    """Compare two systems by their `tables`: statistics of each article, [articles, statistics]."""
    a, b = tables
    count = len(a)
    score_a, score_b = score(a.sum(0), count), score(b.sum(0), count)
    generator = np.random.default_rng(seed)
    differences = np.empty(resamples)
    for i in range(resamples):
        drawn = generator.integers(0, count, count)
        differences[i] = score(b[drawn].sum(0), count) - score(a[drawn].sum(0), count)
    difference = score_b - score_a
    ahead = differences if difference >= 0 else -differences
    low, high = np.percentile(differences, [2.5, 97.5])
    interval = (float(low), float(high))
    return Comparison(metric, score_a, score_b, difference, interval, float((ahead <= 0).mean()))


def common_references(a: Predictions, b: Predictions) -> list[list[str]]:
    """Return the references in both files, as written by `bart evaluate`."""
    found = []
    for file in (a, b):
        group = [_references(row) for row in file.rows]
        if not group or not all(group):
            raise UsageError(
                f"{file.path} has no references", hint="Pass --data with the pairs it belongs to."
            )
        found.append(group)
    if found[0] != found[1]:
        raise UsageError(
            f"{a.path} and {b.path} belong to different pairs: their references differ",
            hint="Compare predictions of the same articles, in the same order.",
        )
    return found[0]


def reference_columns(references: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """Transpose references for sacrebleu: all first ones, all second ones …, None if missing."""
    most = max(map(len, references))
    return [[group[i] if i < len(group) else None for group in references] for i in range(most)]


def _references(row: dict[str, Any]) -> list[str]:
    value = row.get("references", row.get("reference"))
    texts = [value] if isinstance(value, str) else value
    return texts if isinstance(texts, list) and all(isinstance(t, str) for t in texts) else []


def _mean(total: NDArray[Any], count: int) -> float:
    return float(total[0]) / count
