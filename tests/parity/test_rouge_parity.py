"""Our ROUGE scores equal those of `rouge-score` called directly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.scoring import BootstrapAggregator

from bart_cli.data.pairs import read_pairs
from bart_cli.evaluation.rouge import KINDS, as_sentences
from bart_cli.evaluation.scoring import lead
from tests.conftest import SENTENCES
from tests.rouge import rouge_scores


@pytest.mark.parametrize(("workers", "stemmer"), [(1, True), (1, False), (2, True)])
def test_means_equal_rouge_score(workers: int, stemmer: bool) -> None:
    count = 600 if workers > 1 else 20
    predictions = [" ".join(SENTENCES[i % 3 :: 2]) for i in range(count)]
    references = [" ".join(SENTENCES[i % 2 :]) for i in range(count)]
    ours = rouge_scores(predictions, references, stemmer=stemmer, workers=workers, bootstrap=50)
    scorer = RougeScorer(list(KINDS), use_stemmer=stemmer)
    theirs = [
        scorer.score(as_sentences(r), as_sentences(p))
        for p, r in zip(predictions, references, strict=True)
    ]
    for kind in KINDS:
        each = [100 * scores[kind].fmeasure for scores in theirs]
        assert ours.mean[kind] == pytest.approx(sum(each) / count)
        assert ours.each[kind] == pytest.approx(each)
        low, high = ours.interval[kind]
        assert low <= ours.mean[kind] <= high


def test_both_sides_are_split_by_the_same_rules() -> None:
    assert as_sentences("One is here. Two is there.") == "One is here.\nTwo is there."
    assert as_sentences("line one\n\n line two") == "line one\nline two"


def test_intervals_equal_rouge_score_within_sampling_error() -> None:
    predictions = [" ".join(SENTENCES[i % 3 :: 2]) for i in range(60)]
    references = [" ".join(SENTENCES[i % 2 :]) for i in range(60)]
    ours = rouge_scores(predictions, references, bootstrap=2000)
    assert ours == rouge_scores(predictions, references, bootstrap=2000)
    scorer = RougeScorer(list(KINDS), use_stemmer=True)
    np.random.seed(0)  # noqa: NPY002 - the aggregator draws from there
    aggregator = BootstrapAggregator(n_samples=2000)
    for prediction, reference in zip(predictions, references, strict=True):
        aggregator.add_scores(scorer.score(as_sentences(reference), as_sentences(prediction)))
    for kind, score in aggregator.aggregate().items():
        theirs = (100 * score.low.fmeasure, 100 * score.high.fmeasure)
        assert ours.interval[kind] == pytest.approx(theirs, abs=0.5)


def test_lead_3_on_real_news_equals_rouge_score(shared_data: Path) -> None:
    pairs = read_pairs(shared_data / "cnn_dm", "test")
    leads = [lead(pair.source, 3) for pair in pairs]
    ours = rouge_scores(leads, [pair.target for pair in pairs])
    scorer = RougeScorer(list(KINDS), use_stemmer=True)
    theirs = [
        scorer.score(as_sentences(pair.target), prediction)
        for pair, prediction in zip(pairs, leads, strict=True)
    ]
    for kind in KINDS:
        mean = 100 * sum(scores[kind].fmeasure for scores in theirs) / len(pairs)
        assert ours.mean[kind] == pytest.approx(mean)
    assert ours.mean["rouge2"] == pytest.approx(10.65, abs=0.01)
