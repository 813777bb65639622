"""`generate` for any batch: order, independence of rows, settings, limits."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import torch
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper
from transformers.generation.logits_process import TopPLogitsWarper

from bart_cli.config.generation import GenerationConfig
from bart_cli.errors import UsageError
from bart_cli.inference.engine import Engine
from bart_cli.inference.generate import Hypothesis, generate
from bart_cli.inference.sampling import warp
from bart_cli.model.bart import Bart
from tests.conftest import tiny_model_config

VOCABULARY = 60
SETTINGS: dict[str, dict[str, object]] = {
    "greedy": {"beams": 1},
    "beams": {"beams": 4, "return_sequences": 2},
    "sampling": {"beams": 1, "sample": True, "return_sequences": 3, "top_p": 0.9},
    "beams and sampling": {"beams": 3, "sample": True, "temperature": 1.5},
}


@pytest.fixture(scope="module")
def model() -> Bart:
    torch.manual_seed(0)
    model = Bart(tiny_model_config(vocab_size=VOCABULARY, init_std=0.3)).eval()
    with torch.no_grad():
        model.final_logits_bias[0, model.config.eos_token_id] = 4.0
    return model


def articles(count: int, seed: int = 0) -> list[list[int]]:
    pick = random.Random(seed)
    return [
        [0, *(pick.randrange(4, VOCABULARY) for _ in range(pick.randint(1, 30))), 2]
        for _ in range(count)
    ]


def settings(name: str, **changes: object) -> GenerationConfig:
    return GenerationConfig.model_validate({"max_length": 20} | SETTINGS[name] | changes)


def texts(found: list[list[Hypothesis]]) -> list[list[list[int]]]:
    return [[hypothesis.tokens for hypothesis in hypotheses] for hypotheses in found]


@pytest.mark.parametrize("name", SETTINGS)
def test_a_summary_does_not_depend_on_its_batch(model: Bart, name: str) -> None:
    sources, engine = articles(12), Engine(model)
    alone = [texts(generate(engine, [source], settings(name)))[0] for source in sources]
    lengths = {len(row) for rows in alone for row in rows}
    assert len(lengths) > 3, "all end at once: nothing leaves a batch early"
    for batch in ({"batch_size": 12}, {"batch_size": 5}, {"max_tokens": 64}):
        assert texts(generate(engine, sources, settings(name), **batch)) == alone
    backwards = texts(generate(engine, sources[::-1], settings(name)))
    assert backwards[::-1] == alone


def test_steps_with_static_shapes_find_the_same_hypotheses(model: Bart) -> None:
    sources, engine = articles(12), Engine(model)
    for name in SETTINGS:
        engine.static = False
        growing = texts(generate(engine, sources, settings(name)))
        engine.static = True
        assert texts(generate(engine, sources, settings(name))) == growing, name


def test_another_seed_gives_other_results(model: Bart) -> None:
    drawn = [texts(generate(model, articles(4), settings("sampling", seed=n))) for n in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_draws_follow_the_probabilities(model: Bart) -> None:
    source = [0, 11, 12, 13, 2]
    generation = settings("sampling", max_length=2, forced_bos=False, forced_eos=False, top_p=1.0)
    with torch.inference_mode():
        memory = model.encode(torch.tensor([source]))
        start = torch.tensor([[model.config.decoder_start_token_id]])
        expected = model.logits(model.decode(start, memory))[0, 0].softmax(-1)
    draws: Counter[int] = Counter()
    for seed in range(30):
        many = generation.model_copy(update={"seed": seed, "return_sequences": 64})
        draws.update(h.tokens[0] for h in generate(model, [source], many)[0])
    count = draws.total()
    likely = expected.topk(3)[1].tolist()
    for token in likely:
        p = float(expected[token])
        assert abs(draws[token] / count - p) < 4 * (p * (1 - p) / count) ** 0.5


@pytest.mark.parametrize("at_least", [1, 2])
@pytest.mark.parametrize(
    "changes", [{"top_k": 5}, {"top_p": 0.7}, {"temperature": 0.5, "top_k": 9, "top_p": 0.8}]
)
def test_warping_equals_transformers(changes: dict[str, float], at_least: int) -> None:
    torch.manual_seed(0)
    scores = torch.randn(6, VOCABULARY) * 3
    generation = settings("sampling", **({"top_p": 1.0} | changes))
    theirs = LogitsProcessorList([TemperatureLogitsWarper(generation.temperature)])
    if generation.top_k:
        theirs.append(TopKLogitsWarper(generation.top_k, min_tokens_to_keep=at_least))
    if generation.top_p < 1:
        theirs.append(TopPLogitsWarper(generation.top_p, min_tokens_to_keep=at_least))
    expected = theirs(torch.zeros(6, 1, dtype=torch.int64), scores.clone())
    torch.testing.assert_close(warp(scores, generation, at_least=at_least), expected)


def test_a_model_decodes_like_an_engine_made_from_it(model: Bart) -> None:
    engine = Engine(model)
    for name in SETTINGS:
        mine, theirs = (generate(x, articles(3), settings(name)) for x in (model, engine))
        assert mine == theirs


def test_training_mode_is_restored(model: Bart) -> None:
    model.train()
    generate(model, articles(1), settings("greedy"))
    assert all(module.training for module in model.modules())
    model.eval()


@pytest.mark.parametrize("beams", [1, 3])
def test_the_only_token_of_a_hypothesis_is_its_end(model: Bart, beams: int) -> None:
    """As in transformers, the end is forced after the beginning."""
    shortest = GenerationConfig(beams=beams, max_length=2, forced_bos=True, forced_eos=True)
    assert texts(generate(model, articles(2), shortest)) == [[[2]], [[2]]]


def test_more_hypotheses_than_beams_are_refused() -> None:
    for options in ({"beams": 2}, {"beams": 2, "sample": True}):
        with pytest.raises(ValueError, match="return_sequences=3 needs at least as many beams"):
            GenerationConfig.model_validate({"return_sequences": 3} | options)
    assert GenerationConfig(beams=1, sample=True, return_sequences=3).return_sequences == 3


def test_sources_longer_than_the_positions_are_refused(model: Bart) -> None:
    with pytest.raises(UsageError, match="a source of 65 tokens exceeds the model's 64"):
        generate(model, [[5] * 65], settings("greedy"))
    with pytest.raises(UsageError, match="max_length=65"):
        generate(model, articles(1), settings("greedy", max_length=65))
    with pytest.raises(UsageError, match="bad_words contains 60000, but the vocabulary has"):
        generate(model, articles(1), settings("greedy", bad_words=((60000,),)))
