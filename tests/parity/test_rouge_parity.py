"""Our ROUGE numbers are those of `rouge-score` called directly."""

from __future__ import annotations

import pytest
from rouge_score.rouge_scorer import RougeScorer

from bart_cli.evaluation.rouge import KINDS, as_sentences, rouge_scores
from tests.conftest import SENTENCES


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("stemmer", [True, False])
def test_means_equal_rouge_score(workers: int, stemmer: bool) -> None:
    count = 600 if workers > 1 else 20
    predictions = [" ".join(SENTENCES[i % 3 :: 2]) for i in range(count)]
    references = [" ".join(SENTENCES[i % 2 :]) for i in range(count)]
    ours = rouge_scores(predictions, references, stemmer=stemmer, workers=workers, bootstrap=50)
    scorer = RougeScorer(list(KINDS), use_stemmer=stemmer)
    for kind in KINDS:
        each = [
            100 * scorer.score(as_sentences(r), as_sentences(p))[kind].fmeasure
            for p, r in zip(predictions, references, strict=True)
        ]
        assert ours.mean[kind] == pytest.approx(sum(each) / count)
        assert ours.each[kind] == pytest.approx(each)
        low, high = ours.interval[kind]
        assert low <= ours.mean[kind] <= high


def test_one_rule_splits_both_sides() -> None:
    assert as_sentences("One is here. Two is there.") == "One is here.\nTwo is there."
    assert as_sentences("line one\n\n line two") == "line one\nline two"
