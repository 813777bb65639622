"""ROUGE of text in other languages than English: words of any script."""

from __future__ import annotations

import pytest

from bart_cli.config.generation import EvaluationConfig
from bart_cli.config.run import EvaluateConfig
from bart_cli.evaluation.report import mark_shared
from bart_cli.evaluation.rouge import KINDS, share_without_words
from bart_cli.evaluation.scoring import _mean_words, _rouge
from bart_cli.progress import Reporter
from tests.rouge import rouge_scores

TEXTS = {
    "ru": ("Мэр открыл новый мост. Он велик.", "Мэр закрыл старый мост. Дождь идёт."),
    "zh": ("市长开放了新桥。人们很高兴。", "市长关闭了旧路。下雨了。"),
    "hi": ("मेयर ने नया पुल खोला।", "मेयर ने पुरानी सड़क बंद की।"),
    "th": ("นายกเทศมนตรีเปิดสะพาน", "ฝนตกหนัก"),
}


@pytest.mark.parametrize("language", TEXTS)
def test_equal_texts_of_any_script_score_100_and_others_less(language: str) -> None:
    text, other = TEXTS[language]
    scores = rouge_scores([text, other], [text, text], tokenizer="unicode")
    for kind in KINDS:
        assert scores.each[kind][0] == pytest.approx(100)
        assert scores.each[kind][1] < 70
    assert rouge_scores([text], [text]).mean["rouge1"] == 0  # rouge-score's own words
    assert share_without_words([text, "The mayor."]) == 0.5


def test_english_text_has_the_same_scores_with_words_of_any_script() -> None:
    pair = ["The mayor opened two bridges."], ["A mayor opens 2 old bridges."]
    assert rouge_scores(*pair, tokenizer="unicode").mean == rouge_scores(*pair).mean


def test_accents_written_in_two_ways_are_the_same_word() -> None:
    scores = rouge_scores(["Le caf\u00e9."], ["le cafe\u0301"], tokenizer="unicode")
    assert scores.mean["rouge1"] == pytest.approx(100)


def test_the_report_marks_words_of_any_script() -> None:
    pieces = mark_shared("новый мост", "Старый новый мост", stemmer=True, tokenizer="unicode")
    assert [(piece.text, piece.shared) for piece in pieces] == [("новый мост", True)]


@pytest.mark.parametrize(("tokenizer", "warnings"), [("ascii", 1), ("unicode", 0)])
def test_lost_references_are_warned_of(tokenizer: str, warnings: int) -> None:
    said = []

    class Recorder(Reporter):
        def warn(self, message: str) -> None:
            said.append(message)

    settings = {"tokenizer": tokenizer, "bootstrap": 0}
    config = EvaluateConfig(evaluation=EvaluationConfig.model_validate(settings))
    _rouge(config, {"model": [TEXTS["ru"][0]]}, [TEXTS["ru"][0]], Recorder())
    assert len(said) == warnings
    assert all("100%" in message and "--rouge-tokenizer unicode" in message for message in said)


@pytest.mark.parametrize(("tokenizer", "words"), [("ascii", 1.5), ("unicode", 3.5)])
def test_words_are_counted_as_they_are_compared(tokenizer: str, words: float) -> None:
    evaluation = EvaluationConfig.model_validate({"tokenizer": tokenizer})
    config = EvaluateConfig(evaluation=evaluation)
    assert _mean_words(["居民选出新。", "Мэр пришёл."], config) == words


def test_the_best_of_several_references_counts_as_in_rouge_score() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    references = [["a bridge opened", "the mayor opened a bridge"], ["rain", "snow fell"]]
    predictions = ["the mayor opened the bridge", "rain fell"]
    found = rouge_scores(predictions, references)
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    for i, (group, text) in enumerate(zip(references, predictions, strict=True)):
        for kind, score in scorer.score_multi(group, text).items():
            assert found.each[kind][i] == 100 * score.fmeasure
