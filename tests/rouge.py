"""ROUGE of one system, with the default settings unless given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bart_cli.config.generation import EvaluationConfig
from bart_cli.evaluation.rouge import RougeScores, score_systems


def rouge_scores(
    predictions: Sequence[str],
    references: Sequence[str | Sequence[str]],
    *,
    bootstrap: int = 0,
    workers: int = 1,
    **settings: Any,
) -> RougeScores:
    systems, config = {"": predictions}, EvaluationConfig(**settings)
    return score_systems(systems, references, config, bootstrap=bootstrap, workers=workers)[""]
