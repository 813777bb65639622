"""Exports are verified before they appear, and errors describe the mismatch."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

from bart_cli.config.commands import ExportConfig
from bart_cli.config.generation import GenerationConfig
from bart_cli.config.model import ModelConfig
from bart_cli.errors import BartError, UsageError
from bart_cli.export import write as export
from bart_cli.export.write import export_model
from bart_cli.model.bart import Bart
from bart_cli.model.formats import load_model
from bart_cli.tokenizer import Tokenizer
from tests.conftest import save_model

DECODING = GenerationConfig(beams=3, max_length=30)


@pytest.fixture
def model(tiny_config: ModelConfig, tiny_tokenizer: Tokenizer, tmp_path: Path) -> str:
    torch.manual_seed(1)
    save_model(tmp_path / "model", Bart(tiny_config), tiny_tokenizer, DECODING)
    return str(tmp_path / "model")


def test_an_exported_reference_checkpoint_has_its_names_and_loads_equal(
    model: str, tiny_config: ModelConfig, tmp_path: Path
) -> None:
    done = export_model(model, tmp_path / "out", ExportConfig(format="reference"))
    assert done.difference == 0
    state = torch.load(tmp_path / "out/final_step.ckpt", weights_only=True)
    expected = {"model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"}
    assert expected | {"lm_head.weight", "final_logits_bias"} <= state.keys()
    assert ("model.encoder.last_layernorm.weight" in state) == tiny_config.pre_layer_norm
    assert "model.encoder.layer_norm.weight" not in state
    settings = json.loads((tmp_path / "out/config.json").read_text())
    assert (settings["model_type"], settings["num_beams"]) == ("bart", 3)
    assert settings["pre_ln"] == tiny_config.pre_layer_norm
    back, before = load_model(tmp_path / "out/final_step.ckpt"), load_model(model)
    assert back.model.config == tiny_config
    assert back.generation == DECODING
    for name, tensor in before.model.state_dict().items():
        assert torch.equal(back.model.state_dict()[name], tensor), name


def damage_weights(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> None:
    """Let `write_weights` of a module write one tensor with noise."""
    honest = module.write_weights

    def damaged(folder: Path, config: object, weights: dict, *rest: object) -> None:
        name = "model.decoder.layers.1.fc2.bias"
        noise = 0.1 * torch.randn_like(weights[name])
        honest(folder, config, weights | {name: weights[name] + noise}, *rest)

    monkeypatch.setattr(module, "write_weights", damaged)


def test_pairs_that_do_not_read_back_equal_are_not_kept(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage_weights(monkeypatch, export)
    with pytest.raises(BartError, match="logits differ by"):
        export_model(model, tmp_path / "out", ExportConfig())
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_weights_beyond_fp16_are_named(
    tiny_config: ModelConfig, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    bart = Bart(tiny_config)
    with torch.no_grad():
        bart.model.encoder.layers[0].fc1.bias[0] = 1e6
    save_model(tmp_path / "m", bart, tiny_tokenizer)
    with pytest.raises(
        BartError, match=r"encoder\.layers\.0\.fc1\.bias has non-finite values in fp16"
    ):
        export_model(str(tmp_path / "m"), tmp_path / "out", ExportConfig(dtype="fp16"))
    assert not (tmp_path / "out").exists()


def test_without_transformers_the_missing_comparison_is_reported(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    assert export_model(model, tmp_path / "out", ExportConfig()).difference is None
    assert (tmp_path / "out/model.safetensors").is_file()


def test_the_current_folder_is_not_a_name_for_an_export(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(UsageError, match=r"--out \. names an existing folder"):
        export_model(model, Path(), ExportConfig())


def test_a_nonempty_folder_is_not_replaced(model: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").touch()
    with pytest.raises(UsageError, match="already exists"):
        export_model(model, tmp_path / "out", ExportConfig())
    assert (tmp_path / "out/thesis.txt").exists()


def test_a_given_tokenizer_must_fit_the_model(
    model: str, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    export_model(model, tmp_path / "ckpt", ExportConfig(format="reference"))
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("final_step.ckpt", "config.json"):
        (tmp_path / "ckpt" / name).rename(alone / name)
    with pytest.raises(UsageError, match="has no tokenizer"):
        export_model(str(alone / "final_step.ckpt"), tmp_path / "out", ExportConfig())
    tiny_tokenizer.save(tmp_path / "bpe")
    config = ExportConfig(tokenizer=str(tmp_path / "bpe"))
    export_model(str(alone / "final_step.ckpt"), tmp_path / "out", config)
    assert load_model(tmp_path / "out").tokenizer is not None
    Tokenizer.train(["more words"] * 9, vocab_size=500).save(tmp_path / "large")
    config = ExportConfig(tokenizer=str(tmp_path / "large"))
    if Tokenizer.from_pretrained(tmp_path / "large").vocab_size > 400:
        with pytest.raises(UsageError, match="more than the model's 400"):
            export_model(str(alone / "final_step.ckpt"), tmp_path / "out2", config)


def test_the_mean_of_a_runs_newest_checkpoints_is_exported(
    tiny_config: ModelConfig, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    states = []
    for step in (2, 4, 9, 10):
        torch.manual_seed(step)
        model = Bart(tiny_config)
        save_model(tmp_path / f"checkpoints/step-{step:08d}/model", model, tiny_tokenizer, DECODING)
        states.append(model.state_dict())
    export_model(str(tmp_path), tmp_path / "out", ExportConfig(average=3))
    loaded = load_model(tmp_path / "out")
    assert loaded.generation == DECODING
    for name, tensor in loaded.model.state_dict().items():
        mean = torch.stack([state[name].double() for state in states[1:]]).mean(0)
        torch.testing.assert_close(tensor.double(), mean, rtol=1e-6, atol=1e-7)
    with pytest.raises(UsageError, match=r"--average 5: .* has 4 checkpoints"):
        export_model(str(tmp_path), tmp_path / "more", ExportConfig(average=5))
