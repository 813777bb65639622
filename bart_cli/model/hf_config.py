"""Convert our configuration to and from Hugging Face's config.json and generation_config.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bart_cli.config.base import complaint
from bart_cli.config.generation import GenerationConfig, SavedGeneration
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
# Defaults of transformers' BartConfig (BART-large), for settings that an old file omits.
DEFAULTS = {
    "d_model": 1024,
    "encoder_layers": 12,
    "decoder_layers": 12,
    "encoder_attention_heads": 16,
    "decoder_attention_heads": 16,
    "encoder_ffn_dim": 4096,
    "decoder_ffn_dim": 4096,
}
# Alternative names of these settings, which transformers prefers.
ALIASES = {
    "d_model": "hidden_size",
    "encoder_layers": "num_hidden_layers",
    "encoder_attention_heads": "num_attention_heads",
}
# Suffixes of architectures without a language-model head -> the rest of "MODEL … texts".
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
# The same for settings that are written only if they differ from the default.
RARE = {
    "encoder_no_repeat_ngram": "encoder_no_repeat_ngram_size",
    "bad_words": "bad_words_ids",
} | {
    name: name
    for name in """min_p typical_p top_h epsilon_cutoff eta_cutoff encoder_repetition_penalty
    exponential_decay_length_penalty sequence_bias suppress_tokens begin_suppress_tokens
    renormalize_logits""".split()
}
# Defaults of transformers that differ from ours. Its 20 tokens do not count the start token.
TRANSFORMERS: Json = {
    "beams": 1,
    "length_penalty": 1.0,
    "max_length": 21,
    "no_repeat_ngram": 0,
    "early_stopping": False,
    "top_k": 50,
    "forced_bos": False,
    "forced_eos": False,
}
# Settings of transformers that change its output and are not implemented -> values without effect.
UNKNOWN: Mapping[str, tuple[object, ...]] = {
    "num_beam_groups": (1,),
    "penalty_alpha": (0, 0.0),
    "guidance_scale": (1, 1.0),
    "remove_invalid_values": (False,),
    "token_healing": (False,),
} | dict.fromkeys(
    "constraints force_words_ids dola_layers watermarking_config stop_strings max_time".split(), ()
)
# Lengths that do not count the start token; they take precedence over those that do.
NEW_TOKENS = {"min_length": "min_new_tokens", "max_length": "max_new_tokens"}
# Our name of an id -> Hugging Face's.
IDS = {
    "forced_bos_token": "forced_bos_token_id",
    "forced_eos_tokens": "forced_eos_token_id",
    "start_token": "decoder_start_token_id",
    "end_tokens": "eos_token_id",
}
SAMPLING = set("temperature top_k top_p min_p typical_p top_h epsilon_cutoff eta_cutoff".split())
DEFAULT = GenerationConfig().model_dump()


def to_hf(config: ModelConfig) -> Json:
    """Build the `config.json` of BartForConditionalGeneration (post-LN) or of mBART (Pre-LN)."""
    settings = config.model_dump(exclude={"pre_layer_norm"})
    activation = settings["activation_function"]
    settings["activation_function"] = "gelu_new" if activation == "gelu_tanh" else activation
    name = "MBart" if config.pre_layer_norm else "Bart"
    return settings | {
        "architectures": [f"{name}ForConditionalGeneration"],
        "model_type": name.lower(),
        "is_encoder_decoder": True,
        # No longer read by transformers, but by CTranslate2's converter and other tools.
        "normalize_before": config.pre_layer_norm,
        "normalize_embedding": True,
        "add_final_layer_norm": config.pre_layer_norm,
        "add_bias_logits": False,
        "static_position_embeddings": False,
        "tie_word_embeddings": True,
        "num_hidden_layers": config.encoder_layers,
        "forced_eos_token_id": config.eos_token_id,
        "use_cache": True,
    }


def _require_bart(settings: Json, path: Path) -> None:
    """Raise UsageError if a `config.json` is not that of a BART that generates text."""
    model_type = settings.get("model_type", "bart")  # the first BART files lack it
    if model_type not in ("bart", "mbart"):
        raise UsageError(
            f"{path}: model_type is {model_type!r}; expected 'bart' or 'mbart'",
            hint="Name a BART or mBART model, such as facebook/bart-large-cnn.",
        )
    if quantized := settings.get("quantization_config"):
        method = quantized.get("quant_method") if isinstance(quantized, dict) else quantized
        raise UsageError(
            f"{path}: the weights are quantized ({method}); expected floating-point numbers",
            hint="Name the model that they were made of; --precision int8 quantizes it on loading.",
        )
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
    """Convert the content of a `config.json`; `path` is used in error messages."""
    _require_bart(settings, path)
    activation = settings.get("activation_function", "gelu")
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise UsageError(
            f"{path}: activation_function={activation!r}; allowed: {', '.join(ACTIVATIONS)}"
        )
    known = {name: value for name, value in settings.items() if value is not None}
    fields: Json = {}
    for name in ModelConfig.model_fields:
        names = (name, ALIASES.get(name, name))
        if name != "encoder_layers":  # distilled models keep the teacher's num_hidden_layers
            names = names[::-1]
        value = next((known[n] for n in names if n in known), DEFAULTS.get(name))
        if value is not None:
            fields[name] = value
    if isinstance(fields.get("eos_token_id"), list):  # decoding uses all of them
        fields["eos_token_id"] = next(iter(fields["eos_token_id"]), None)
    fields["activation_function"] = ACTIVATIONS[activation]
    task = (settings.get("task_specific_params") or {}).get("summarization") or {}
    fields["prefix"] = settings.get("prefix") or task.get("prefix") or ""
    fields["pre_layer_norm"] = settings.get("model_type") == "mbart"
    try:
        return ModelConfig.model_validate(fields)
    except ValidationError as error:
        raise _invalid(path, error, {}) from None


def generation_to_hf(config: ModelConfig, generation: GenerationConfig | None) -> Json:
    """Build the `generation_config.json`."""
    settings: Json = {
        "bos_token_id": config.bos_token_id,
        "pad_token_id": config.pad_token_id,
        "eos_token_id": config.eos_token_id,
        "decoder_start_token_id": config.decoder_start_token_id,
        "forced_eos_token_id": config.eos_token_id,
    }
    if generation is None:
        return settings
    for ours, theirs in (GENERATION | RARE).items():
        value = getattr(generation, ours)
        # transformers warns about sampling options without sampling.
        unused = ours in SAMPLING and not generation.sample
        if not unused and (ours in GENERATION or value != DEFAULT[ours]):
            settings[theirs] = value
    first, last = generation.forced_bos_token, generation.forced_eos_tokens
    first = config.bos_token_id if first is None else first
    settings["forced_bos_token_id"] = first if generation.forced_bos else None
    settings["forced_eos_token_id"] = _short(last, config) if generation.forced_eos else None
    settings["eos_token_id"] = _short(generation.end_tokens, config)
    if generation.start_token is not None:
        settings["decoder_start_token_id"] = generation.start_token
    return settings


def _short(ids: tuple[int, ...] | None, config: ModelConfig) -> int | list[int]:
    """Format ids as Hugging Face does: a single one as a number. None: the model's </s>."""
    if ids is None:
        return config.eos_token_id
    return ids[0] if len(ids) == 1 else list(ids)


def generation_from_hf(
    settings: Json, path: Path, model: ModelConfig | None = None
) -> SavedGeneration:
    """Convert the decoding settings of a model folder as `transformers.generate` reads them.

    Args:
        settings: content of generation_config.json, or of the config.json of an older model.
        path: that file.
        model: its special ids are the defaults; ids equal to them are omitted from the result.
    """
    model = model or ModelConfig()
    given = {name: value for name, value in settings.items() if value is not None}
    fields: Json = TRANSFORMERS | {
        "max_length": min(TRANSFORMERS["max_length"], model.max_position_embeddings)
    }
    stated = set()
    for ours, theirs in (GENERATION | RARE).items():
        if theirs in given:
            fields[ours] = given[theirs]
            stated.add(ours)
    for ours, theirs in NEW_TOKENS.items():
        if theirs in given:
            if not isinstance(given[theirs], int):
                raise UsageError(f"{path}: {theirs}={given[theirs]!r}: expected a number of tokens")
            fields[ours] = given[theirs] + 1  # our lengths count the start token
            stated.add(ours)
    first = given.get("forced_bos_token_id")
    if path.name == "config.json" and given.get("force_bos_token_to_be_generated") is True:
        first = model.bos_token_id  # transformers 3 had this setting instead
        stated.add("forced_bos")
    last = given.get("forced_eos_token_id")
    fields["forced_bos"], fields["forced_eos"] = first is not None, last is not None
    stated |= {name for name in ("forced_bos", "forced_eos") if f"{name}_token_id" in settings}
    start = given.get("decoder_start_token_id", given.get("bos_token_id"))
    start = start[0] if isinstance(start, list) and len(start) == 1 else start
    usual = (model.eos_token_id,)
    special = {
        "forced_bos_token": (first, model.bos_token_id),
        "forced_eos_tokens": (_many(last), usual),
        "start_token": (start, model.decoder_start_token_id),
        "end_tokens": (_many(given.get("eos_token_id")), usual),
    }
    for name, (value, default) in special.items():
        fields[name] = None if value == default else value
    stated |= {name for name in special if fields[name] is not None}
    notices = [
        f"{path}: {name}={given[name]!r} is not implemented; without it, summaries differ from "
        "those of transformers"
        for name, idle in UNKNOWN.items()
        if name in given and given[name] not in idle
    ]
    if path.name == "config.json":
        notices += _task_notices(settings, path)
    low, high = fields.get("min_length", 0), fields["max_length"]
    most = model.max_position_embeddings
    if isinstance(high, int) and high > most:
        notices.append(f"{path}: max_length={high} is lowered to the model's {most} positions")
        fields["max_length"] = high = most
    if isinstance(low, int) and isinstance(high, int) and low > high:
        notices.append(f"{path}: min_length={low} is lowered to max_length={high}")
        fields["min_length"] = high
    try:
        config = GenerationConfig.model_validate(fields)
    except ValidationError as error:
        idle = {problem["loc"][0] for problem in error.errors() if problem["loc"]} & SAMPLING
        if idle and not given.get("do_sample"):  # such as temperature 0, meaning no sampling
            rest = {name: value for name, value in settings.items() if name not in idle}
            return generation_from_hf(rest, path, model)
        raise _invalid(path, error, GENERATION | RARE | IDS) from None
    values = {name: getattr(config, name) for name in fields} | _with_rows(config, model.vocab_size)
    return SavedGeneration(str(path), values, frozenset(stated), tuple(notices))


def _with_rows(config: GenerationConfig, rows: int) -> Json:
    """Drop ids without an embedding, which no model generates, from the lists of such tokens."""
    kept: Json = {
        "bad_words": tuple(ids for ids in config.bad_words if max(ids) < rows),
        "sequence_bias": tuple(item for item in config.sequence_bias if max(item[0]) < rows),
    }
    for name in ("suppress_tokens", "begin_suppress_tokens", "end_tokens"):
        ids = getattr(config, name)
        kept[name] = ids and tuple(i for i in ids if i < rows)
    return {name: value for name, value in kept.items() if value != getattr(config, name)}


def _task_notices(settings: Json, path: Path) -> list[str]:
    """Report task_specific_params that a user may expect to apply, but transformers ignores."""
    notices = []
    tasks = settings.get("task_specific_params")
    summarization = tasks.get("summarization") if isinstance(tasks, dict) else None
    if isinstance(summarization, dict):
        differ = [
            f"{k}={v}" for k, v in summarization.items() if settings.get(k) != v and k != "prefix"
        ]
        if differ:
            notices.append(
                f"{path}: task_specific_params.summarization has {', '.join(differ)}, which is not "
                "used, as in `generate` of transformers. Pass options for these settings."
            )
    return notices


def _many(ids: int | list[int] | None) -> tuple[int, ...] | None:
    if ids is None:
        return None
    return tuple(ids) if isinstance(ids, list) else (ids,)


def _invalid(path: Path, error: ValidationError, names: Mapping[str, str]) -> UsageError:
    """Report the first invalid setting of a file, under the name used in the file."""
    problem = error.errors()[0]
    message = complaint(problem)
    if not problem["loc"]:
        return UsageError(f"{path}: {message}")
    ours = str(problem["loc"][0])
    return UsageError(f"{path}: {names.get(ours, ours)}={problem['input']!r}: {message}")
