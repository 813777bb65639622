"""Articles that join a running batch get the hypotheses that they get alone."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bart_cli.config.generation import GenerationConfig
from bart_cli.inference.decoding import Decoding
from bart_cli.inference.engine import Engine
from bart_cli.inference.generate import generate
from bart_cli.inference.running import Hypothesis, RunningBatch
from bart_cli.model.bart import Bart
from tests.conftest import tiny_model_config

VOCABULARY, STEPS = 60, 180
OPTIONS: list[dict[str, object]] = [
    {"beams": 1},
    {"beams": 1, "repetition_penalty": 1.3, "suppress_tokens": [7]},
    {"beams": 1, "sample": True, "return_sequences": 3, "top_p": 0.9},
    {"beams": 2, "early_stopping": False, "encoder_no_repeat_ngram": 2},
    {"beams": 4, "return_sequences": 2, "no_repeat_ngram": 2, "min_length": 5},
    {"beams": 3, "bad_words": [[5], [6, 7]], "encoder_repetition_penalty": 1.2},
    {"beams": 3, "sample": True, "temperature": 1.5, "sequence_bias": [[[9], 2.0]]},
    {"beams": 4, "early_stopping": "never", "exponential_decay_length_penalty": [3, 1.2]},
]


@pytest.fixture(scope="module")
def engine() -> Engine:
    torch.manual_seed(0)
    model = Bart(tiny_model_config(vocab_size=VOCABULARY, init_std=0.3)).eval()
    with torch.no_grad():
        model.final_logits_bias[0, model.config.eos_token_id] = 4.0  # some hypotheses end early
    return Engine(model)


def article(pick: random.Random, longest: int = 30) -> list[int]:
    return [0, *(pick.randrange(4, VOCABULARY) for _ in range(pick.randint(1, longest))), 2]


@settings(deadline=None, max_examples=15)
@example(  # neither article is padded until the longer one joins
    seed=754, option={"beams": 1}, length=4, static=False, waves=[(0, 1), (1, 1)]
)
@given(
    seed=st.integers(0, 999),
    option=st.sampled_from(OPTIONS),
    length=st.integers(2, 14),
    static=st.booleans(),
    waves=st.lists(st.tuples(st.integers(0, 6), st.integers(1, 3)), min_size=2, max_size=5),
)
def test_articles_may_join_at_any_step(
    engine: Engine,
    seed: int,
    option: dict[str, object],
    length: int,
    static: bool,
    waves: list[tuple[int, int]],
) -> None:
    """waves: steps to wait, and number of articles that then join; one article leaves halfway."""
    pick = random.Random(seed)
    changes = {"max_length": length, "min_length": min(length, 5)} if "min_length" in option else {}
    generation = GenerationConfig.model_validate({"max_length": length} | option | changes)
    sources = [article(pick) for _, count in waves for _ in range(count)]
    engine.static = False
    alone = [generate(engine, [source], generation)[0] for source in sources]
    engine.static = static
    batch = RunningBatch[int](engine, generation)
    found: dict[int, list[Hypothesis]] = {}
    canceled = pick.randrange(len(sources))
    number = 0
    for wait, count in waves:
        for _ in range(wait if batch else 0):
            found |= batch.step() if batch else {}
        batch.join({i: sources[i] for i in range(number, number + count)})
        if canceled in range(number, number + count):
            batch.drop([canceled])
        number += count
    while batch:
        found |= batch.step()
    assert found.keys() | {canceled} == set(range(len(sources)))
    for i, hypotheses in found.items():
        assert [each.tokens for each in hypotheses] == [each.tokens for each in alone[i]]
        for mine, theirs in zip(hypotheses, alone[i], strict=True):
            assert mine.score == pytest.approx(theirs.score, rel=1e-4, abs=1e-4)


def test_a_batch_that_never_ends_stays_small(engine: Engine) -> None:
    """Columns are reused, and the room for long sources is freed when they have left."""
    engine.static = False
    pick = random.Random(0)
    generation = GenerationConfig(beams=2, max_length=6, min_length=4)
    batch = RunningBatch[int](engine, generation)
    widths = []
    for number in range(STEPS):
        if len(batch) < 3:
            batch.join({number: article(pick, 60 if number % 60 == 0 else 6)})
        decoding = batch._decoding
        assert decoding is not None
        keys, values = decoding._caches[0].own_keys, decoding._caches[0].source_values
        assert (keys.shape[0] <= 3, keys.shape[2]) == (True, 2 * 6)
        widths.append(values.shape[2])
        batch.step()
    assert decoding is not None
    assert decoding._steps > STEPS / 2, "the batch became empty and began anew"
    assert max(widths) > 32
    assert widths.count(8) > STEPS / 2


def test_a_captured_step_stays_valid_when_articles_join(engine: Engine) -> None:
    """A CUDA graph refers to the tensors of its capture: they stay, or it is captured again."""

    def tensors(decoding: Decoding) -> list[tuple[int, torch.Size]]:
        caches = [vars(cache) for cache in decoding._caches]
        found = [each for part in (vars(decoding), *caches) for each in part.items()]
        return [
            (tensor.data_ptr(), tensor.shape)
            for name, tensor in found
            if isinstance(tensor, torch.Tensor) and name != "_here"  # computed by each step
        ]

    engine.static = True
    pick = random.Random(1)
    batch = RunningBatch[int](engine, GenerationConfig(beams=2, max_length=6, min_length=3))
    outcomes = Counter[tuple[str, bool]]()
    for number in range(80):
        decoding = batch._decoding
        graph: Any = object()
        if decoding is not None:
            before, padded, decoding._graph = tensors(decoding), decoding._has_padding, graph
        joins = len(batch) < 4
        if joins:
            batch.join({number: article(pick, 20)})
        else:
            batch.step()
        if decoding is not None and decoding is batch._decoding:
            valid = decoding._graph is graph
            outcomes["join" if joins else "step", valid] += 1
            if valid:
                assert tensors(decoding) == before
                assert decoding._has_padding == padded
    assert outcomes["join", True] > 5
    assert outcomes["join", False] > 5
    assert outcomes["step", True] > 5
