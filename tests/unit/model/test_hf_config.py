"""Decoding settings of a model folder have the same meaning as in `transformers`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bart_cli.config.generation import GenerationConfig
from bart_cli.config.model import ModelConfig
from bart_cli.errors import UsageError
from bart_cli.model.hf_config import generation_from_hf, generation_to_hf

FILE = Path("m/generation_config.json")


def read(**settings: object) -> dict[str, object]:
    return generation_from_hf(settings, FILE).config.model_dump()


def test_numbers_of_new_tokens_take_precedence_over_lengths() -> None:
    found = read(max_new_tokens=60, min_new_tokens=9, max_length=20)
    assert (found["max_length"], found["min_length"]) == (61, 10)
    assert read(num_beams=2, max_length=30)["max_length"] == 30


def test_sampling_uses_the_top_k_of_transformers_by_default() -> None:
    assert read(num_beams=1, do_sample=True)["top_k"] == 50
    assert read(num_beams=1, do_sample=True, top_k=0)["top_k"] == 0
    assert read(num_beams=1)["top_k"] == 50  # for --sample


def test_the_old_name_of_the_forced_first_token_is_known() -> None:
    old, path = {"force_bos_token_to_be_generated": True}, FILE.with_name("config.json")
    assert generation_from_hf(old, path).values["forced_bos"]
    assert not generation_from_hf(old, FILE).values["forced_bos"]  # as transformers reads it
    assert not read(num_beams=4, force_bos_token_to_be_generated=False)["forced_bos"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_beams": "x"}, "num_beams='x': input should be a valid integer"),
        ({"num_beams": 1, "no_repeat_ngram_size": -1}, "no_repeat_ngram_size=-1: input should be"),
        ({"max_new_tokens": "many"}, "max_new_tokens='many': expected a number of tokens"),
        ({"do_sample": True, "temperature": 0.0}, "temperature=0.0: input should be greater"),
        ({"do_sample": True, "temperature": 1e-300}, "temperature=1e-300: input should be greater"),
        ({"forced_bos_token_id": -1}, "forced_bos_token_id=-1: input should be greater"),
    ],
)
def test_errors_use_the_names_in_the_file(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        generation_from_hf(settings, FILE)
    assert str(FILE) in caught.value.message
    assert message in caught.value.message


def test_a_minimum_above_the_maximum_yields_with_a_notice() -> None:
    saved = generation_from_hf({"max_length": 9, "min_length": 10}, FILE)
    assert saved.values["min_length"] == 9
    assert saved.notices == (f"{FILE}: min_length=10 is lowered to max_length=9",)


def test_a_missing_maximum_is_20_tokens_after_the_start() -> None:
    assert read(num_beams=4)["max_length"] == 21
    few = ModelConfig(max_position_embeddings=16)
    assert generation_from_hf({}, FILE, few).values["max_length"] == 16


def test_special_ids_are_kept_if_they_differ_from_the_model() -> None:
    same = {"forced_bos_token_id": 0, "forced_eos_token_id": 2, "eos_token_id": [2]}
    found = read(**same, decoder_start_token_id=2)
    assert (found["forced_bos"], found["forced_bos_token"]) == (True, None)
    assert found["end_tokens"] is found["forced_eos_tokens"] is found["start_token"] is None
    other = {"forced_bos_token_id": 9, "forced_eos_token_id": [2, 7], "eos_token_id": [2, 8]}
    found = read(**other, bos_token_id=0)  # the start token defaults to <s>
    assert (found["forced_bos_token"], found["start_token"]) == (9, 0)
    assert (found["forced_eos_tokens"], found["end_tokens"]) == ((2, 7), (2, 8))
    assert not read(forced_bos_token_id=None)["forced_bos"]


def test_settings_without_effect_are_dropped() -> None:
    """Temperature 0 without sampling, and tokens without an embedding, which never occur."""
    assert read(temperature=0.0, top_p=0.0) == read()
    found = read(
        suppress_tokens=[9, 50265], bad_words_ids=[[9, 50265], [9]], eos_token_id=[2, 99999]
    )
    assert (found["suppress_tokens"], found["bad_words"]) == ((9,), ((9,),))
    assert found["end_tokens"] == (2,)
    saved = generation_from_hf({"max_new_tokens": 1024}, FILE)
    assert saved.values["max_length"] == 1024
    assert saved.notices == (f"{FILE}: max_length=1025 is lowered to the model's 1024 positions",)


def test_settings_that_are_not_implemented_are_named() -> None:
    settings = {"num_beam_groups": 3, "guidance_scale": 1.0, "stop_strings": ["x"]}
    notices = generation_from_hf(settings, FILE).notices
    assert [note.partition(" is not")[0] for note in notices] == [
        f"{FILE}: num_beam_groups=3",
        f"{FILE}: stop_strings=['x']",
    ]
    task = {"summarization": {"max_length": 128, "num_beams": 4}}
    path = FILE.with_name("config.json")
    [note] = generation_from_hf({"task_specific_params": task, "num_beams": 4}, path).notices
    assert "max_length=128" in note
    assert "num_beams" not in note


def test_written_settings_are_read_back() -> None:
    generation = GenerationConfig(
        beams=3,
        bad_words=((5,), (6, 7)),
        sequence_bias=(((4, 5), -1.5),),
        suppress_tokens=(9,),
        encoder_no_repeat_ngram=3,
        exponential_decay_length_penalty=(5, 1.2),
        forced_bos_token=7,
        forced_eos_tokens=(2, 5),
        end_tokens=(2, 5),
        start_token=0,
        sample=True,
        typical_p=0.4,
    )
    written = json.loads(json.dumps(generation_to_hf(ModelConfig(), generation)))
    assert "min_p" not in written
    assert generation_from_hf(written, FILE).config == generation
