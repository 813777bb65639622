"""Models are loaded from every supported format, and damage is reported."""

from __future__ import annotations

import argparse
import collections
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bart_cli.config.generation import GenerationConfig
from bart_cli.config.model import ModelConfig
from bart_cli.errors import BartError, UsageError
from bart_cli.model.bart import Bart
from bart_cli.model.formats import load_model, resolve_model
from bart_cli.tokenizer import Tokenizer
from tests.conftest import save_model, tiny_model_config


@pytest.fixture
def model(tiny_config: ModelConfig) -> Bart:
    torch.manual_seed(3)
    return Bart(tiny_config).eval()


def assert_same_weights(one: Bart, other: Bart) -> None:
    for (name, ours), theirs in zip(
        one.state_dict().items(), other.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs), name


def test_a_saved_model_loads_equal(model: Bart, tiny_tokenizer: Tokenizer, tmp_path: Path) -> None:
    generation = GenerationConfig(beams=3, length_penalty=0.5, max_length=40)
    save_model(tmp_path / "m", model, tiny_tokenizer, generation)
    loaded = load_model(tmp_path / "m")
    assert loaded.model.config == model.config
    assert loaded.generation == generation
    assert loaded.tokenizer is not None
    assert loaded.tokenizer.encode("The mayor") == tiny_tokenizer.encode("The mayor")
    assert_same_weights(loaded.model, model)
    assert all(parameter.requires_grad for parameter in loaded.model.parameters())


def test_weights_have_the_permissions_of_the_configuration(
    model: Bart, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    save_model(tmp_path / "m", model, tiny_tokenizer)
    config, weights = (tmp_path / "m" / name for name in ("config.json", "model.safetensors"))
    assert weights.stat().st_mode == config.stat().st_mode


def test_weights_are_mapped_not_drawn_and_copied(
    model: Bart, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    save_model(tmp_path / "m", model, tiny_tokenizer)
    before = torch.random.get_rng_state()
    loaded = load_model(tmp_path / "m").model
    assert torch.equal(torch.random.get_rng_state(), before)
    maps = Path("/proc/self/maps")
    if maps.is_file():
        ranges = [
            tuple(int(end, 16) for end in line.split()[0].split("-"))
            for line in maps.read_text().splitlines()
            if "model.safetensors" in line
        ]
        address = loaded.model.shared.weight.data_ptr()
        assert any(begin <= address < end for begin, end in ranges)


def test_saving_again_replaces_the_folder(
    model: Bart, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    save_model(tmp_path / "m", model, tiny_tokenizer)
    with torch.no_grad():
        model.model.shared.weight.add_(1.0)
    save_model(tmp_path / "m", model, tiny_tokenizer)
    assert_same_weights(load_model(tmp_path / "m").model, model)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("layout", ["wrapped", "bare"])
def test_a_reference_checkpoint_is_read(model: Bart, tmp_path: Path, layout: str) -> None:
    state = {
        name.replace(".layer_norm.", ".last_layernorm."): tensor
        for name, tensor in model.state_dict().items()
    }
    state["lm_head.weight"] = state["model.shared.weight"]
    content = {"model": state, "optimizer": {}, "scaler": {}} if layout == "wrapped" else state
    torch.save(content, tmp_path / "_step100.ckpt")
    settings = model.config.model_dump() | {"model_type": "bart"}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    loaded = load_model(tmp_path / "_step100.ckpt")
    assert loaded.model.config == model.config
    assert loaded.tokenizer is None
    assert_same_weights(loaded.model, model)


@pytest.mark.parametrize("zipped", [True, False], ids=["new", "legacy"])
def test_a_fairseq_checkpoint_is_loaded_and_its_shape_inferred(
    tmp_path: Path, zipped: bool
) -> None:
    config = tiny_model_config(
        d_model=128, encoder_attention_heads=4, decoder_attention_heads=2, decoder_ffn_dim=64
    )
    model = Bart(config.model_copy(update={"dropout": 0.1}))
    state = {name.removeprefix("model."): tensor for name, tensor in model.state_dict().items()}
    del state["final_logits_bias"]
    embedding = state.pop("shared.weight")
    state["encoder.embed_tokens.weight"] = state["decoder.embed_tokens.weight"] = embedding
    state["encoder.version"] = torch.tensor([3.0])
    state["classification_heads.mnli.dense.weight"] = torch.zeros(3, 3)
    # The number of decoder heads is not stated: they are 64 wide.
    args = argparse.Namespace(arch="bart_base", encoder_attention_heads=4)
    content = {"args": args, "model": state}
    torch.save(content, tmp_path / "model.pt", _use_new_zipfile_serialization=zipped)
    loaded = load_model(tmp_path / "model.pt")
    assert loaded.model.config == model.config.model_copy(update={"init_std": 0.02})
    assert_same_weights(loaded.model, model)


@pytest.mark.parametrize("name", ["dict.txt", "dict.source.txt"])
def test_a_tokenizer_in_another_order_than_fairseqs_dictionary_is_refused(
    model: Bart, tiny_tokenizer: Tokenizer, tmp_path: Path, name: str
) -> None:
    torch.save({"model": model.state_dict()}, tmp_path / "model.pt")
    tiny_tokenizer.save(tmp_path)
    gpt2 = {token: index for index, token in tiny_tokenizer.gpt2_ids().items()}
    assert (gpt2["!"], gpt2["."]) == ("0", "13")  # as in GPT-2
    ordered = sorted(tiny_tokenizer.entries, key=tiny_tokenizer.entries.__getitem__)
    lines = [f"{gpt2.get(token, token)} 9" for token in ordered[4:-1]]
    (tmp_path / name).write_text("\n".join([*lines, "madeupword0000 0", ""]))
    assert load_model(tmp_path / "model.pt").tokenizer is not None
    (tmp_path / name).write_text("\n".join([*lines[:9], lines[10], lines[9], *lines[11:]]))
    with pytest.raises(UsageError, match=r"has id 13 in the model, but 14 in the tokenizer"):
        load_model(tmp_path / "model.pt")


def test_the_model_of_a_run_is_its_best_then_final_then_newest(tmp_path: Path) -> None:
    for name in ("checkpoints/step-00000100/model", "checkpoints/step-00000200/model"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").touch()
    assert resolve_model(tmp_path) == tmp_path / "checkpoints/step-00000200/model"
    for name in ("model", "best"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").touch()
        assert resolve_model(tmp_path) == tmp_path / name
    assert resolve_model(tmp_path, "last") == tmp_path / "model"
    assert resolve_model(tmp_path, "100") == tmp_path / "checkpoints/step-00000100/model"
    for wrong in ("300", "first"):
        with pytest.raises(UsageError, match=f"--checkpoint {wrong}") as caught:
            resolve_model(tmp_path, wrong)
        assert caught.value.hint == "It has best, last, 100, 200."


def test_weights_that_do_not_fit_are_named(
    model: Bart, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    save_model(tmp_path / "m", model, tiny_tokenizer)
    settings = json.loads((tmp_path / "m/config.json").read_text())
    settings["encoder_ffn_dim"] = 80
    (tmp_path / "m/config.json").write_text(json.dumps(settings))
    with pytest.raises(UsageError, match=r"fc1\.weight is \(64, 32\), expected \(80, 32\)"):
        load_model(tmp_path / "m")


def test_a_truncated_weights_file_is_an_error(
    model: Bart, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    save_model(tmp_path / "m", model, tiny_tokenizer)
    weights = tmp_path / "m/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(BartError, match=r"model\.safetensors: cannot read the weights"):
        load_model(tmp_path / "m")


def test_code_in_a_pickle_does_not_run(tmp_path: Path) -> None:
    evil = Evil(f"touch {tmp_path / 'ran'}")
    torch.save({"model": evil}, tmp_path / "evil.ckpt")
    with pytest.raises(UsageError, match=r"evil\.ckpt: expected a state dict, found an object"):
        load_model(tmp_path / "evil.ckpt")
    content = {"cfg": evil, "model": Bart(tiny_model_config()).state_dict()}
    for zipped in (True, False):
        torch.save(content, tmp_path / "half.ckpt", _use_new_zipfile_serialization=zipped)
        load_model(tmp_path / "half.ckpt")
    assert not (tmp_path / "ran").exists()


class Evil:
    """An object that runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        """Return the command to run, for pickle."""
        return os.system, (self.command,)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": "t5"}, "model_type is 't5'; expected 'bart' or 'mbart'"),
        ({"quantization_config": {"quant_method": "gptq"}}, r"weights are quantized \(gptq\)"),
        ({"model_type": "bart", "d_model": -1}, "d_model=-1: input should be greater"),
        ({"model_type": "bart", "encoder_attention_heads": 5}, "json: encoder_attention_heads=5"),
        ({"model_type": "bart", "activation_function": "tanh"}, "allowed: gelu"),
        ({"model_type": "bart", "activation_function": ["gelu"]}, "allowed: gelu"),
    ],
)
def test_another_architecture_is_refused(
    tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(settings))
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(UsageError, match=message):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": 3}, "expected a state dict, found int"),
        ({"model": {"model.shared.weight": 3}}, "'model.shared.weight' is int, not a tensor"),
        ({"epoch": 3}, "'epoch' is int, not a tensor"),
        ({1: torch.zeros(2)}, "1 is not a tensor name"),
    ],
)
@pytest.mark.parametrize("name", ["x.ckpt", "pytorch_model.bin"])
def test_a_pickle_without_weights_is_refused(
    tmp_path: Path, name: str, content: dict[object, object], message: str
) -> None:
    torch.save(content, tmp_path / name)
    if name == "pytorch_model.bin":
        (tmp_path / "config.json").write_text('{"model_type": "bart"}')
    with pytest.raises(UsageError, match=message):
        load_model(tmp_path / name if name == "x.ckpt" else tmp_path)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("model.encoder.embed_positions.weight", torch.zeros(4, 32), "max_position_embeddings=2"),
        ("model.shared.weight", torch.zeros(400), "no matrices"),
    ],
)
def test_invalid_shapes_are_reported(
    tmp_path: Path, name: str, tensor: torch.Tensor, message: str
) -> None:
    torch.save(Bart(tiny_model_config()).state_dict() | {name: tensor}, tmp_path / "x.ckpt")
    with pytest.raises(UsageError, match=message):
        load_model(tmp_path / "x.ckpt")


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"<!DOCTYPE html>\n<html>",
            "is text, not weights: it begins with '<!DOCTYPE html> <html>'",
        ),
        (b"", "is empty"),
        (bytes(5000), "is empty"),  # as preallocated by a download manager
        (b"\x80\x02cut", "cannot read the weights"),
    ],
)
def test_a_file_that_holds_no_weights_is_named(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bart"}')
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BartError, match=message):
        load_model(tmp_path)


def test_an_archive_is_not_taken_for_a_checkpoint(tmp_path: Path) -> None:
    """fairseq's models are published as bart.large.cnn.tar.gz."""
    (tmp_path / "m/bart.large.cnn").mkdir(parents=True)
    for kind in ("gztar", "zip"):
        file = shutil.make_archive(str(tmp_path / "bart.large.cnn"), kind, tmp_path / "m")
        with pytest.raises(BartError, match="cannot read the weights: it is an archive"):
            load_model(file)


def test_other_checkpoints_in_a_folder_are_suggested(tmp_path: Path) -> None:
    (tmp_path / "model.pt").touch()
    for problem in ("no model in", "no weights in"):
        with pytest.raises(UsageError, match=problem) as caught:
            load_model(tmp_path)
        assert caught.value.hint == f"Name a file in it: {tmp_path / 'model.pt'}."
        (tmp_path / "config.json").write_text('{"model_type": "bart"}')
    (tmp_path / "model-00001-of-00002.safetensors").touch()
    with pytest.raises(UsageError) as caught:
        load_model(tmp_path)
    assert caught.value.hint == "Download or copy its *.index.json too."


@pytest.mark.parametrize("places", [{}, {"weight_map": 3}, {"weight_map": {"a": 3}}])
def test_an_index_that_names_no_files_is_refused(tmp_path: Path, places: object) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bart"}')
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(places))
    with pytest.raises(UsageError, match=r"index\.json: expected weight_map"):
        load_model(tmp_path)


def test_integer_weights_are_refused(
    model: Bart, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    save_model(tmp_path / "m", model, tiny_tokenizer)
    state = {name: tensor.long() for name, tensor in model.state_dict().items()}
    save_file(state, tmp_path / "m/model.safetensors")
    with pytest.raises(UsageError, match=r"is torch\.int64, expected floating-point numbers"):
        load_model(tmp_path / "m")


def test_json_that_is_nested_too_deeply_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(UsageError, match=r"config\.json: not valid JSON: nested too deeply"):
        load_model(tmp_path)


def test_an_empty_folder_is_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no model in"):
        load_model(tmp_path)


def wrapped(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "form",
    [
        lambda s: {"epoch": 3, "state_dict": wrapped(s, "model."), "hyper_parameters": Path("x")},
        lambda s: {"state_dict": wrapped(s, "model._orig_mod."), "callbacks": {"a": {"b": Path()}}},
        lambda s: wrapped(s, "_orig_mod.module."),
        lambda s: wrapped(s, "module._orig_mod."),
        lambda s: {"module": wrapped(s, "module.model.bart."), "optimizer": None},
        lambda s: {"epoch": 1, "model_state_dict": {"model": s}},
        lambda s: {"epoch": 1, "net": s, "optimizer": {"state": {}}},
        lambda s: {k.replace("layers.0.", "_orig_mod.layers.0.module."): v for k, v in s.items()},
        lambda s: {k.removeprefix("model."): v for k, v in s.items()},
        lambda s: wrapped(s, "model.") | {"rouge.total": torch.ones(1), "loss.w": torch.ones(1)},
        lambda s: wrapped(s, "module._orig_mod.net.") | {"module._orig_mod.head.w": torch.ones(1)},
    ],
)
def test_checkpoints_of_other_tools_are_loaded(
    model: Bart, tiny_tokenizer: Tokenizer, tmp_path: Path, form: Callable[..., object]
) -> None:
    save_model(tmp_path, model, tiny_tokenizer)
    torch.save(form(model.state_dict()), tmp_path / "x.ckpt")
    loaded = load_model(tmp_path / "x.ckpt")
    assert loaded.tokenizer is not None
    assert_same_weights(loaded.model, model)


def test_a_module_saved_as_a_whole_is_loaded(
    model: Bart, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    save_model(tmp_path, model, tiny_tokenizer)
    for tensor in (model.model.shared.weight, model.final_logits_bias):
        # transformers leaves such marks, which pickle keeps.
        tensor._is_hf_initialized = True  # type: ignore[attr-defined]
    for content in (model, {"epoch": 1, "best": torch.nn.Sequential(model)}):
        torch.save(content, tmp_path / "model.pt")
        assert_same_weights(load_model(tmp_path / "model.pt").model, model)


def test_a_checkpoint_of_fairseq_with_fused_copies_and_a_hydra_configuration(
    tmp_path: Path,
) -> None:
    model = Bart(tiny_model_config(d_model=64, encoder_attention_heads=1, encoder_ffn_dim=128))
    state = {n.removeprefix("model."): t for n, t in model.state_dict().items()}
    embedding = state.pop("shared.weight")
    for name in ("encoder.embed_tokens", "decoder.embed_tokens", "decoder.output_projection"):
        state[f"{name}.weight"] = embedding
    del state["final_logits_bias"]
    layer = "encoder.layers.0"
    for kind in ("weight", "bias"):
        parts = [state[f"{layer}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
        state[f"{layer}.in_proj_{kind}"] = torch.cat(parts)
        state[f"{layer}.out_proj.{kind}"] = state[f"{layer}.self_attn.out_proj.{kind}"]
        # Before 0.8, there was only one matrix.
        first = "decoder.layers.1.self_attn"
        parts = [state.pop(f"{first}.{part}_proj.{kind}") for part in "qkv"]
        state[f"{first}.in_proj_{kind}"] = torch.cat(parts)
    content = {
        "args": None,
        "cfg": {"model": Path("of"), "task": collections.defaultdict(list, a=[Path("another")])},
        "model": state,
        "last_optimizer_state": {"loss_scaler": {Path("class")}},
    }
    torch.save(content, tmp_path / "checkpoint_best.pt")
    loaded = load_model(tmp_path / "checkpoint_best.pt").model
    assert not loaded.config.scale_embedding
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_a_checkpoint_of_fairseq_tells_whether_embeddings_are_scaled(tmp_path: Path) -> None:
    """As mBART's are, unlike BART's."""
    state = Bart(tiny_model_config(pre_layer_norm=True)).state_dict()
    options = argparse.Namespace(no_scale_embedding=False, encoder_attention_heads=2)
    torch.save({"args": options, "model": state}, tmp_path / "model.pt")
    assert load_model(tmp_path / "model.pt").model.config.scale_embedding


def test_two_models_in_one_checkpoint_are_told_apart(model: Bart, tmp_path: Path) -> None:
    state = model.state_dict()
    torch.save(wrapped(state, "teacher.") | wrapped(state, "student."), tmp_path / "x.ckpt")
    with pytest.raises(UsageError, match=r"two models in one checkpoint: teacher\..* and student"):
        load_model(tmp_path / "x.ckpt")


def test_a_missing_bertscore_layer_is_reported(model: Bart, tmp_path: Path) -> None:
    state = wrapped(model.state_dict(), "model.") | {"model.adapter.up.weight": torch.ones(1)}
    torch.save({"state_dict": state}, tmp_path / "x.ckpt")
    with pytest.raises(UsageError, match=r"unknown model\.adapter\.up\.weight"):
        load_model(tmp_path / "x.ckpt")


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_pointer_of_git_lfs_is_named(
    model: Bart, tiny_tokenizer: Tokenizer, tmp_path: Path, name: str
) -> None:
    save_model(tmp_path / "m", model, tiny_tokenizer)
    (tmp_path / "m/model.safetensors").unlink()
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1625270765\n"
    (tmp_path / "m" / name).write_text(pointer)
    with pytest.raises(BartError, match="is a Git LFS pointer") as caught:
        load_model(tmp_path / "m")
    assert caught.value.hint == f"Fetch them: git -C {tmp_path / 'm'} lfs pull"


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bart"}')
    index = {"weight_map": {"a": "pytorch_model-00001-of-00001.bin"}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(BartError, match=r"00001\.bin: cannot read the weights: No such") as caught:
        load_model(tmp_path)
    assert caught.value.hint == "Download or copy the whole folder again."


def test_an_error_for_a_trainer_output_folder_names_its_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-500").mkdir()
    (tmp_path / "checkpoint-500/config.json").touch()
    with pytest.raises(UsageError, match="no model in") as caught:
        load_model(tmp_path)
    assert "checkpoint-500" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tie_word_embeddings", False),
        ("extra_pos_embeddings", 0),
        ("static_position_embeddings", True),
        ("normalize_embedding", False),
        ("num_hidden_layers", 12),
    ],
)
def test_keys_determined_by_the_weights_are_not_read(
    model: Bart, tiny_tokenizer: Tokenizer, tmp_path: Path, name: str, value: object
) -> None:
    save_model(tmp_path / "m", model, tiny_tokenizer)
    path = tmp_path / "m/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    assert_same_weights(load_model(tmp_path / "m").model, model)


@pytest.mark.parametrize(
    ("name", "kind", "remedy"),
    [
        ("tf_model.h5", "TensorFlow weights", "from_tf=True"),
        ("flax_model.msgpack", "Flax weights", "from_flax=True"),
        ("adapter_config.json", "LoRA", "merge_and_unload"),
        ("encoder_model.onnx", "ONNX", "model that they were made of"),
        ("bart-large-cnn.Q8_0.gguf", "weights for llama.cpp", "model that they were made of"),
        ("zero_to_fp32.py", "a sharded checkpoint of DeepSpeed", "zero_to_fp32.py"),
        ("pytorch_model_fsdp_0", "a sharded checkpoint of FSDP", "accelerate merge-weights"),
    ],
)
@pytest.mark.parametrize("configured", [True, False])
def test_weights_of_other_libraries_are_named(
    tmp_path: Path, name: str, kind: str, remedy: str, configured: bool
) -> None:
    (tmp_path / name).touch()
    if configured:
        (tmp_path / "config.json").write_text('{"model_type": "bart"}')
    with pytest.raises(UsageError, match=rf"holds {kind}.*\({name}\)") as caught:
        load_model(tmp_path)
    assert remedy in (caught.value.hint or "")


def test_old_and_odd_configurations(model: Bart, tiny_tokenizer: Tokenizer, tmp_path: Path) -> None:
    """No model_type, names of other models, null ids, many end tokens, an old list of shards."""
    save_model(tmp_path, model, tiny_tokenizer)
    path = tmp_path / "config.json"
    settings = json.loads(path.read_text())
    settings["hidden_size"] = settings.pop("d_model")
    settings |= {"eos_token_id": [2, 5], "decoder_start_token_id": None, "extra_pos_embeddings": 2}
    del settings["model_type"]
    path.write_text(json.dumps(settings))
    (tmp_path / "model.safetensors").unlink()
    parts = {f"pytorch_model-0000{i}-of-00002.bin": {} for i in (1, 2)}
    places = {}
    for number, (name, tensor) in enumerate(model.state_dict().items()):
        places[name] = list(parts)[number % 2]
        parts[places[name]][name] = tensor
    for file, part in parts.items():
        torch.save(part, tmp_path / file)
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    loaded = load_model(tmp_path).model
    assert_same_weights(loaded, model)
    assert loaded.config.eos_token_id == 2

    path.write_text(json.dumps(settings | {"architectures": ["BartForSequenceClassification"]}))
    with pytest.raises(UsageError, match="BartForSequenceClassification classifies texts"):
        load_model(tmp_path)
