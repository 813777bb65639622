"""Texts that are decoded together: their order, and their summaries."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from bart_cli.config.generation import GenerationConfig
from bart_cli.model.bart import Bart
from bart_cli.serve import running
from bart_cli.serve.running import RunningTexts
from bart_cli.summarize.summarizer import Summarizer, Summary
from bart_cli.tokenizer import Tokenizer
from tests.conftest import SENTENCES, save_model, tiny_model_config

GENERATION = GenerationConfig(beams=2, max_length=12, min_length=6)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Tokenizer) -> Summarizer:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("running")
    bart = Bart(tiny_model_config(vocab_size=tiny_tokenizer.vocab_size, init_std=0.3))
    save_model(folder, bart, tiny_tokenizer, GENERATION)
    return Summarizer.from_pretrained(Path(folder))


def finish(texts: RunningTexts) -> dict[int, Summary]:
    """Decode to the end; the summaries are in the order in which they were done."""
    found: dict[int, Summary] = {}
    while texts:
        found |= texts.step()
    return found


def test_texts_that_arrive_at_any_time_get_the_summaries_of_the_summarizer(
    model: Summarizer,
) -> None:
    pick = random.Random(0)
    given = [" ".join(pick.choices(SENTENCES, k=pick.choice([1, 2, 20]))) for _ in range(12)]
    given += ["x", "\u200b"]
    long = [pick.choice(["truncate", "chunk", "reduce"]) for _ in given]
    texts = RunningTexts(model, GENERATION, batch_size=4, max_tokens=160)
    found: dict[int, Summary] = {}
    for number, text in enumerate(given):
        texts.add(number, text, long[number])  # type: ignore[arg-type]
        for _ in range(pick.randint(0, 9)):
            found |= texts.step()
        if number == 5:
            texts.add(99, text, "chunk")
            texts.step()
            assert texts.cancel(99)
            assert not texts.cancel(99)
    found |= finish(texts)
    for number, text in enumerate(given):
        expected = model.summarize(text, long=long[number])
        assert found[number].text == expected.text
        assert found[number].pieces == expected.pieces
        assert found[number].score == pytest.approx(expected.score, abs=1e-4)


def test_a_short_text_does_not_wait_for_all_pieces_of_a_long_one(model: Summarizer) -> None:
    texts = RunningTexts(model, GENERATION, batch_size=2, max_tokens=None)
    texts.add(0, " ".join(SENTENCES * 20), "chunk")
    texts.step()
    texts.add(1, SENTENCES[0], "truncate")
    assert list(finish(texts)) == [1, 0]


def test_a_text_that_would_need_much_padding_waits_and_is_not_overtaken(
    model: Summarizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "MOST_PADDING", 60)
    texts = RunningTexts(model, GENERATION, batch_size=8, max_tokens=None)
    for number in (0, 1):
        texts.add(number, "Rain fell.", "truncate")
    texts.step()
    texts.add(2, " ".join(SENTENCES), "truncate")
    texts.add(3, "Snow fell.", "truncate")
    assert sorted(list(finish(texts))[:2]) == [0, 1]


def test_on_a_gpu_few_cohorts_run_at_once(model: Summarizer) -> None:
    model.model.static = True
    try:
        texts = RunningTexts(model, GENERATION, batch_size=8, max_tokens=None)
        most = 0
        for number in range(7):
            texts.add(number, SENTENCES[number % 4], "truncate")
            assert not texts.step()
            most = max(most, texts._batch.cohorts)
        assert most == running.MOST_COHORTS_ON_GPU
        assert len(finish(texts)) == 7
    finally:
        model.model.static = False
