"""Builds the folders: the published models' settings, every way to store weights and tokenizers.

`build("bart-large-cnn", folder, tokenizer)` writes what the hub holds under that name. Layers are
fewer and narrower; what else a model says of itself is kept, quirks too: 50,264 rows for 50,265
entries, settings of transformers 3, a prefix, ids that are null.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import BartConfig, BartForConditionalGeneration, BartForSequenceClassification

from bart_cli.tokenizer import Tokenizer

Storage = Literal[
    "safetensors", "safetensors in shards", "bin", "bin in shards", "fp16", "bf16", "lm_head only",
    "encoder only", "decoder only", "all names", "no model. prefix", "no bias",
]  # fmt: skip
STORAGES: tuple[Storage, ...] = Storage.__args__  # type: ignore[attr-defined]
Files = Literal["new", "old", "both"]  # tokenizer.json; vocab.json and merges.txt; all of them

# Narrow layers; all other settings below are as in the published files.
NARROW = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "num_hidden_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": 1024,
}
COMMON = {
    "activation_function": "gelu",
    "activation_dropout": 0.1,
    "add_bias_logits": False,
    "add_final_layer_norm": False,
    "architectures": ["BartForConditionalGeneration"],
    "attention_dropout": 0.1,
    "bos_token_id": 0,
    "classif_dropout": 0.1,
    "classifier_dropout": 0.0,
    "decoder_layerdrop": 0.0,
    "decoder_start_token_id": 2,
    "dropout": 0.1,
    "encoder_layerdrop": 0.0,
    "eos_token_id": 2,
    "gradient_checkpointing": False,
    "id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"},
    "init_std": 0.02,
    "is_encoder_decoder": True,
    "label2id": {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2},
    "model_type": "bart",
    "normalize_before": False,
    "pad_token_id": 1,
    "scale_embedding": False,
    "use_cache": True,
}
CNN = {"length_penalty": 2.0, "max_length": 142, "min_length": 56, "num_beams": 4}
XSUM = {"length_penalty": 1.0, "max_length": 62, "min_length": 11, "num_beams": 6}
TASKS = {
    "summarization": {"length_penalty": 1.0, "max_length": 128, "min_length": 12, "num_beams": 4},
    "summarization_cnn": CNN,
    "summarization_xsum": XSUM,
}
TRIGRAMS = {"early_stopping": True, "no_repeat_ngram_size": 3}
FORCED = {"forced_bos_token_id": 0, "forced_eos_token_id": 2}
# Keys of the distilled models, of transformers 2 and 3.
DISTILLED = {
    "extra_pos_embeddings": 2,
    "static_position_embeddings": False,
    "normalize_embedding": True,
    "output_past": True,
    "prefix": " ",
    "replacing_rate": 0,
    "student_decoder_layers": None,
    "student_encoder_layers": None,
    "save_step": 58,
}
IDS = {"bos_token_id": 0, "decoder_start_token_id": 2, "eos_token_id": 2, "pad_token_id": 1}

# Name -> content of config.json besides COMMON. `missing`: number of entries without a row.
CONFIGS: dict[str, dict[str, object]] = {
    "bart-base": {
        "architectures": ["BartModel"],
        "task_specific_params": TASKS,
        "num_beams": 4,
        **TRIGRAMS,
        **FORCED,
    },
    "bart-large": {
        "architectures": ["BartModel"],
        "task_specific_params": TASKS,
        "num_beams": 4,
        **TRIGRAMS,
        **FORCED,
    },
    "bart-large-cnn": {
        "_num_labels": 3,
        "force_bos_token_to_be_generated": True,
        "output_past": True,
        "prefix": " ",
        "task_specific_params": {"summarization": CNN | TRIGRAMS},
        **CNN,
        **TRIGRAMS,
        **FORCED,
    },
    "bart-large-xsum": {
        "_num_labels": 3,
        "output_past": True,
        "prefix": " ",
        "task_specific_params": {},
        "forced_eos_token_id": 2,
        **XSUM,
        **TRIGRAMS,
    },
    "distilbart-cnn-12-6": {
        "force_bos_token_to_be_generated": True,
        "decoder_layers": 1,
        **DISTILLED,
        **CNN,
        **TRIGRAMS,
    },
    "distilbart-cnn-6-6": {
        "force_bos_token_to_be_generated": True,
        "encoder_layers": 1,
        "num_hidden_layers": 1,
        **DISTILLED,
        **CNN,
        **TRIGRAMS,
    },
    "distilbart-xsum-12-6": {
        "decoder_layers": 1,
        "force_bos_token_to_be_generated": False,
        **DISTILLED,
        **XSUM,
        "length_penalty": 0.5,
        **TRIGRAMS,
    },
    "bart-large-cnn-samsum": {
        "_name_or_path": "facebook/bart-large-cnn",
        "force_bos_token_to_be_generated": True,
        "prefix": " ",
        "torch_dtype": "float32",
        "transformers_version": "4.6.1",
        **CNN,
        **TRIGRAMS,
        **FORCED,
    },
    "bart-large-mnli": {
        "_num_labels": 3,
        "architectures": ["BartForSequenceClassification"],
        "forced_eos_token_id": 2,
        "id2label": {"0": "contradiction", "1": "neutral", "2": "entailment"},
        "label2id": {"contradiction": 0, "entailment": 2, "neutral": 1},
    },
}
GENERATION: dict[str, dict[str, object]] = {
    "bart-large-cnn": {"_from_model_config": True, **IDS, **CNN, **TRIGRAMS, **FORCED},
    "bart-large-xsum": {"_from_model_config": True, **IDS, **XSUM, **TRIGRAMS}
    | {"forced_eos_token_id": 2},
}
ONE_ROW_LESS = {name for name in CONFIGS if "cnn" in name or "xsum" in name}


def build(
    name: str,
    folder: Path,
    tokenizer: Tokenizer,
    *,
    storage: Storage = "safetensors",
    files: Files = "both",
    **changes: object,
) -> Path:
    """Write the stand-in of a published model; `changes` to its config.json, None drops a key."""
    folder.mkdir(parents=True)
    rows = tokenizer.vocab_size - (name in ONE_ROW_LESS)
    settings = NARROW | COMMON | CONFIGS[name] | {"vocab_size": rows}
    torch.manual_seed(len(name))
    architecture = BartConfig(**{n: settings[n] for n in (*NARROW, "vocab_size")}, init_std=0.3)
    classifies = name == "bart-large-mnli"
    model = (BartForSequenceClassification if classifies else BartForConditionalGeneration)(
        architecture
    )
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if not classifies:
        state["final_logits_bias"] = torch.zeros(1, rows)
        if storage not in ("no bias", "no model. prefix"):
            state["final_logits_bias"][0, 2] = 5.0  # makes some hypotheses end early
    _save(folder, state, storage)
    settings = {n: v for n, v in (settings | changes).items() if n not in changes or v is not None}
    _write(folder / "config.json", settings)
    if name in GENERATION:
        _write(folder / "generation_config.json", GENERATION[name])
    _save_tokenizer(folder, tokenizer, files)
    return folder


def _save(folder: Path, state: dict[str, Tensor], storage: Storage) -> None:
    embedding = state["model.shared.weight"]
    places = {
        "lm_head": "lm_head.weight",
        "encoder": "model.encoder.embed_tokens.weight",
        "decoder": "model.decoder.embed_tokens.weight",
    }
    for place in places.values():
        state.pop(place, None)
    if storage in ("fp16", "bf16"):
        dtype = torch.float16 if storage == "fp16" else torch.bfloat16
        state = {name: tensor.to(dtype) for name, tensor in state.items()}
    elif storage.endswith(" only"):
        del state["model.shared.weight"]
        state[places[storage.removesuffix(" only")]] = embedding
    elif storage == "all names":
        state |= dict.fromkeys(places.values(), embedding)
    elif storage == "no bias":
        del state["final_logits_bias"]
    elif storage == "no model. prefix":  # as saved by BartModel
        del state["final_logits_bias"]
        state = {name.removeprefix("model."): tensor for name, tensor in state.items()}
        state |= {f"{side}.embed_tokens.weight": embedding for side in ("encoder", "decoder")}
    pickled = storage.startswith("bin") or storage in ("all names", "no model. prefix")
    suffix = "bin" if pickled else "safetensors"
    stem = "pytorch_model" if pickled else "model"
    if not storage.endswith("in shards"):
        return _write_weights(folder / f"{stem}.{suffix}", state)
    names = list(state)
    parts = [names[::2], names[1::2]]
    index: dict[str, str] = {}
    for number, part in enumerate(parts, 1):
        file = f"{stem}-{number:05d}-of-{len(parts):05d}.{suffix}"
        _write_weights(folder / file, {name: state[name] for name in part})
        index |= dict.fromkeys(part, file)
    content = {"metadata": {"total_size": 1}, "weight_map": index}
    _write(folder / f"{stem}.{suffix}.index.json", content)


def _write_weights(path: Path, state: dict[str, Tensor]) -> None:
    if path.suffix == ".bin":
        torch.save(state, path)
    else:
        save_file({n: t.contiguous() for n, t in state.items()}, path, metadata={"format": "pt"})


def _save_tokenizer(folder: Path, tokenizer: Tokenizer, files: Files) -> None:
    """Write old tokenizer files (vocabulary and list of special tokens) or tokenizer.json."""
    tokenizer.save(folder)
    _write(folder / "tokenizer_config.json", {"model_max_length": 1024})
    if files == "old":
        (folder / "tokenizer.json").unlink()
        names = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
        tokens = ("<s>", "</s>", "<unk>", "</s>", "<pad>", "<s>", "<mask>")
        special: dict[str, object] = {
            f"{name}_token": token for name, token in zip(names, tokens, strict=True)
        }
        special["mask_token"] = {
            "content": "<mask>",
            "lstrip": True,
            "normalized": True,
            "rstrip": False,
            "single_word": False,
        }
        _write(folder / "special_tokens_map.json", special)
        _write(folder / "added_tokens.json", {"<mask>": tokenizer.mask_id})
    if files == "new":
        for name in ("vocab.json", "merges.txt"):
            (folder / name).unlink()


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
