"""Decoding settings of a model folder mean what they mean to `transformers`."""

from __future__ import annotations

from pathlib import Path

import pytest

from bart_cli.errors import UsageError
from bart_cli.model.hf_config import generation_from_hf

FILE = Path("m/generation_config.json")


def read(**settings: object) -> dict[str, object]:
    generation = generation_from_hf(settings, FILE)
    assert generation is not None
    return generation.model_dump()


def test_numbers_of_new_tokens_go_before_lengths() -> None:
    found = read(max_new_tokens=60, min_new_tokens=9, max_length=20)
    assert (found["max_length"], found["min_length"]) == (61, 10)
    assert read(num_beams=2, max_length=30)["max_length"] == 30


def test_sampling_has_the_top_k_of_transformers_unless_told() -> None:
    assert read(num_beams=1, do_sample=True)["top_k"] == 50
    assert read(num_beams=1, do_sample=True, top_k=0)["top_k"] == 0
    assert read(num_beams=1)["top_k"] == 0


def test_the_old_name_of_the_forced_beginning_is_known() -> None:
    assert read(num_beams=4, force_bos_token_to_be_generated=True)["forced_bos"]
    assert not read(num_beams=4, force_bos_token_to_be_generated=False)["forced_bos"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_beams": "x"}, "num_beams='x': input should be a valid integer"),
        ({"num_beams": 1, "no_repeat_ngram_size": -1}, "no_repeat_ngram_size=-1: input should be"),
        ({"max_new_tokens": "many"}, "max_new_tokens='many': expected a number of tokens"),
        ({"max_length": 9, "min_length": 10}, "json: min_length=10 is larger than max_length=9"),
    ],
)
def test_what_is_wrong_is_named_as_the_file_names_it(
    settings: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        generation_from_hf(settings, FILE)
    assert str(FILE) in caught.value.message
    assert message in caught.value.message
