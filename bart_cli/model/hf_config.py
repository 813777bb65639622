"""Between our configuration and Hugging Face's `config.json` / `generation_config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bart_cli.config.base import complaint
from bart_cli.config.generation import GenerationConfig
from bart_cli.config.model import ModelConfig
from bart_cli.errors import UsageError

Json = dict[str, Any]

# Hugging Face's name of an activation -> ours.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
# Settings of old BART configurations that we do not implement -> the only value allowed.
FIXED = {
    "normalize_embedding": True,
    "static_position_embeddings": False,
    "tie_word_embeddings": True,
    "extra_pos_embeddings": 2,
}
# Defaults of transformers' BartConfig, for what an old file leaves out: BART-large.
DEFAULTS = {
    "d_model": 1024,
    "encoder_layers": 12,
    "decoder_layers": 12,
    "encoder_attention_heads": 16,
    "decoder_attention_heads": 16,
    "encoder_ffn_dim": 4096,
    "decoder_ffn_dim": 4096,
}
# Other names that transformers reads these settings under.
ALIASES = {
    "d_model": "hidden_size",
    "encoder_layers": "num_hidden_layers",
    "encoder_attention_heads": "num_attention_heads",
}
# Architectures with other output layers -> what these models do.
OTHER_HEADS = {
    "ForSequenceClassification": "classifies texts",
    "ForQuestionAnswering": "marks answers in texts",
    "ForCausalLM": "has no encoder",
}
# Our name of a generation setting -> Hugging Face's.
GENERATION = {
    "beams": "num_beams",
    "length_penalty": "length_penalty",
    "min_length": "min_length",
    "max_length": "max_length",
    "no_repeat_ngram": "no_repeat_ngram_size",
    "early_stopping": "early_stopping",
    "return_sequences": "num_return_sequences",
    "sample": "do_sample",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "repetition_penalty": "repetition_penalty",
}
# Lengths without the start token, which go before those with it.
NEW_TOKENS = {"min_length": "min_new_tokens", "max_length": "max_new_tokens"}
# Settings of which one at least says that there are settings.
SEARCH = {"num_beams", "max_length", "max_new_tokens", "length_penalty", "no_repeat_ngram_size"}


def to_hf(config: ModelConfig) -> Json:
    """The `config.json` of BartForConditionalGeneration (post-LN) or of mBART (Pre-LN)."""
    settings = config.model_dump(exclude={"pre_layer_norm"})
    activation = settings["activation_function"]
    settings["activation_function"] = "gelu_new" if activation == "gelu_tanh" else activation
    name = "MBart" if config.pre_layer_norm else "Bart"
    return settings | {
        "architectures": [f"{name}ForConditionalGeneration"],
        "model_type": name.lower(),
        "is_encoder_decoder": True,
        # transformers does not read these any more; CTranslate2's converter and others do.
        "normalize_before": config.pre_layer_norm,
        "normalize_embedding": True,
        "add_final_layer_norm": config.pre_layer_norm,
        "add_bias_logits": False,
        "static_position_embeddings": False,
        "tie_word_embeddings": True,
        "num_hidden_layers": config.encoder_layers,
        "encoder_layerdrop": 0.0,
        "decoder_layerdrop": 0.0,
        "forced_eos_token_id": config.eos_token_id,
        "use_cache": True,
    }


def _require_bart(settings: Json, path: Path) -> None:
    """Refuse the `config.json` of another kind of model; `path` is for error lines.

    Raises:
        UsageError: names the kind.
    """
    kind = settings.get("model_type", "bart")  # the first BARTs came without
    if kind not in ("bart", "mbart"):
        raise UsageError(f"{path}: model_type is {kind!r}; allowed are 'bart' and 'mbart'")
    names = settings.get("architectures") or []
    for name in names if isinstance(names, list) else [names]:
        for head, work in OTHER_HEADS.items():
            if str(name).endswith(head):
                raise UsageError(
                    f"{path}: {name} {work}; it does not generate any",
                    hint="Name a model of BartForConditionalGeneration, such as "
                    "facebook/bart-large-cnn, or facebook/bart-large to fine-tune it.",
                )


def from_hf(settings: Json, path: Path) -> ModelConfig:
    """Read a `config.json`; `path` is for error lines.

    Raises:
        UsageError: another kind of model, or a variant of BART that is not implemented.
    """
    _require_bart(settings, path)
    for name, allowed in FIXED.items():
        if settings.get(name, allowed) != allowed:
            raise UsageError(f"{path}: {name}={settings[name]!r}; only {allowed!r} is implemented")
    activation = settings.get("activation_function", "gelu")
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise UsageError(
            f"{path}: activation_function={activation!r}; allowed: {', '.join(ACTIVATIONS)}"
        )
    known = {name: value for name, value in settings.items() if value is not None}
    fields: Json = {}
    for name in ModelConfig.model_fields:
        value = known.get(name, known.get(ALIASES.get(name, name), DEFAULTS.get(name)))
        if value is not None:
            fields[name] = value
    if isinstance(fields.get("eos_token_id"), list):  # the first ends; decoding knows them all
        fields["eos_token_id"] = next(iter(fields["eos_token_id"]), None)
    fields["activation_function"] = ACTIVATIONS[activation]
    task = (settings.get("task_specific_params") or {}).get("summarization") or {}
    fields["prefix"] = settings.get("prefix") or task.get("prefix") or ""
    fields["pre_layer_norm"] = settings.get("model_type") == "mbart"
    try:
        return ModelConfig.model_validate(fields)
    except ValidationError as error:
        raise _refusal(path, error, {}) from None


def generation_to_hf(config: ModelConfig, generation: GenerationConfig | None) -> Json:
    """The `generation_config.json`."""
    settings: Json = {
        "bos_token_id": config.bos_token_id,
        "pad_token_id": config.pad_token_id,
        "eos_token_id": config.eos_token_id,
        "decoder_start_token_id": config.decoder_start_token_id,
        "forced_eos_token_id": config.eos_token_id,
    }
    if generation is None:
        return settings
    sampling = {"temperature", "top_k", "top_p"}
    for ours, theirs in GENERATION.items():
        if generation.sample or ours not in sampling:  # transformers warns of idle options
            settings[theirs] = getattr(generation, ours)
    settings["forced_bos_token_id"] = config.bos_token_id if generation.forced_bos else None
    settings["forced_eos_token_id"] = config.eos_token_id if generation.forced_eos else None
    return settings


def generation_from_hf(settings: Json, path: Path) -> GenerationConfig | None:
    """Decoding settings of a model folder; None when the file names no search at all.

    Settings that the file leaves out have Hugging Face's defaults, not ours.
    """
    if not settings.keys() & SEARCH:
        return None
    defaults = {"beams": 1, "length_penalty": 1.0, "max_length": 20, "no_repeat_ngram": 0}
    fields: Json = defaults | {"early_stopping": False}
    for ours, theirs in GENERATION.items():
        if settings.get(theirs) is not None:
            fields[ours] = settings[theirs]
    for ours, theirs in NEW_TOKENS.items():
        value = settings.get(theirs)
        if value is not None and not isinstance(value, int):
            raise UsageError(f"{path}: {theirs}={value!r}: expected a number of tokens")
        if value is not None:
            fields[ours] = value + 1  # our lengths count the start token
    if fields.get("sample") and "top_k" not in settings:
        fields["top_k"] = 50
    old = settings.get("force_bos_token_to_be_generated", False)  # the name of transformers 3
    fields["forced_bos"] = settings.get("forced_bos_token_id") is not None or old is True
    fields["forced_eos"] = settings.get("forced_eos_token_id") is not None
    try:
        return GenerationConfig.model_validate(fields)
    except ValidationError as error:
        raise _refusal(path, error, GENERATION) from None


def _refusal(path: Path, error: ValidationError, names: Mapping[str, str]) -> UsageError:
    """The first thing that is wrong with a file, under the name that it has there."""
    problem = error.errors()[0]
    message = complaint(problem)
    if not problem["loc"]:
        return UsageError(f"{path}: {message}")
    ours = str(problem["loc"][0])
    return UsageError(f"{path}: {names.get(ours, ours)}={problem['input']!r}: {message}")
