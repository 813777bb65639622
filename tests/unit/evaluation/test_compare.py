"""Paired bootstrap, compared with all possible resamples, and with rouge-score and sacrebleu."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU

from bart_cli.config.generation import EvaluationConfig
from bart_cli.evaluation.compare import compare_predictions

REFERENCES = [["the mayor opened the new bridge", "a bridge was opened"], ["rain closed the road"],
              ["the team won the cup on monday"], ["prices rose by a tenth this year"]]  # fmt: skip
A = ["the mayor opened a bridge today", "rain closed the road", "the team lost", "prices rose"]
B = ["the mayor opened the new bridge", "snow came", "the team won the cup", "prices rose by half"]


def exact_p(score_a: list[float], score_b: list[float]) -> float:
    """Compute the share of all resamples in which the better system is not ahead."""
    ahead = np.array(score_b) - np.array(score_a)
    return float((np.sign(ahead.mean()) * ahead <= 0).mean())


def test_p_values_agree_with_all_possible_draws() -> None:
    count, resamples = len(REFERENCES), 4000
    settings = EvaluationConfig(bleu=True, bootstrap=resamples)
    found = {r.metric: r for r in compare_predictions(A, B, REFERENCES, settings)}
    draws = [list(draw) for draw in product(range(count), repeat=count)]

    scorer = RougeScorer(["rouge1"], use_stemmer=True)
    each = [
        [
            100 * scorer.score_multi(r, text)["rouge1"].fmeasure
            for r, text in zip(REFERENCES, texts, strict=True)
        ]
        for texts in (A, B)
    ]
    assert [found["rouge1"].a, found["rouge1"].b] == pytest.approx(np.mean(each, 1))
    means = [[np.mean([scores[i] for i in draw]) for draw in draws] for scores in each]
    expected = {"rouge1": exact_p(*means)}

    def bleu(texts: list[str], draw: list[int]) -> float:
        columns = [[REFERENCES[i][0] for i in draw]]
        columns += [[REFERENCES[i][1] if len(REFERENCES[i]) > 1 else None for i in draw]]
        return BLEU().corpus_score([texts[i] for i in draw], columns).score

    assert found["bleu"].a == pytest.approx(bleu(A, [0, 1, 2, 3]))
    assert found["bleu"].b == pytest.approx(bleu(B, [0, 1, 2, 3]))
    expected["bleu"] = exact_p(*([bleu(texts, draw) for draw in draws] for texts in (A, B)))

    for metric, p in expected.items():
        assert 0.01 < p < 0.9
        assert found[metric].p == pytest.approx(p, abs=4 * (p * (1 - p) / resamples) ** 0.5)
        assert found[metric].difference == found[metric].b - found[metric].a
        low, high = found[metric].interval
        assert low <= found[metric].difference <= high


def test_the_order_of_systems_changes_signs_only_and_equals_are_no_better() -> None:
    settings = EvaluationConfig(bootstrap=200)
    forward = compare_predictions(A, B, REFERENCES, settings)
    backward = compare_predictions(B, A, REFERENCES, settings)
    assert [(r.difference, r.p) for r in forward] == [(-r.difference, r.p) for r in backward]
    assert {r.p for r in compare_predictions(A, A, REFERENCES, settings)} == {1.0}
