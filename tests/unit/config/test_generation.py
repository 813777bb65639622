"""Decoding settings come from the model, then a preset or file, then options."""

from __future__ import annotations

from pathlib import Path

import pytest

from bart_cli.config.generation import SavedGeneration
from bart_cli.config.presets import load_config
from bart_cli.config.run import EvaluateConfig
from bart_cli.errors import UsageError

SAVED = SavedGeneration(
    "m/generation_config.json",
    {"beams": 5, "min_length": 56, "max_length": 142, "top_k": 50, "forced_bos": False},
    frozenset({"beams", "min_length", "max_length"}),
)


def test_each_setting_has_a_source(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("task: finetune\ngeneration:\n  length_penalty: 0.5\n")
    config = load_config(
        EvaluateConfig,
        config_file=own,
        saved=SAVED.layers(),
        options={"generation.beams": 2},
        sets=["generation.max_length=100"],
    )
    assert (config.generation.beams, config.generation.min_length) == (2, 56)
    sources = config.generation_sources
    assert sources["beams"] == sources["max_length"] == "options"
    assert sources["length_penalty"] == str(own)
    assert sources["min_length"] == "m/generation_config.json"
    assert sources["top_k"] == "transformers' default (m/generation_config.json)"
    assert sources["temperature"] == "default"


def test_fine_tuning_ignores_the_defaults_of_transformers() -> None:
    config = load_config(EvaluateConfig, saved=SAVED.layers(stated_only=True))
    assert (config.generation.beams, config.generation.forced_bos) == (5, True)
    assert config.generation_sources["forced_bos"] == "default"


def test_a_maximum_below_the_saved_minimum_lowers_it_with_a_notice() -> None:
    notices: list[str] = []
    config = load_config(
        EvaluateConfig,
        saved=SAVED.layers(),
        options={"generation.max_length": 20},
        notify=notices.append,
    )
    assert (config.generation.min_length, config.generation.max_length) == (20, 20)
    assert notices == [
        "min_length is lowered to max_length: min_length=56 (m/generation_config.json), "
        "max_length=20 (options)"
    ]


def test_a_minimum_above_the_saved_maximum_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"max_length=142 \(m/generation_config.json\)"):
        load_config(EvaluateConfig, saved=SAVED.layers(), options={"generation.min_length": 200})
    with pytest.raises(UsageError, match="larger than"):
        load_config(
            EvaluateConfig, options={"generation.min_length": 9, "generation.max_length": 8}
        )
