"""Decoding options shared by several commands, and the settings saved with models."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from bart_cli.cli.options import (
    Config,
    ConfigOptions,
    SourceLanguageOption,
    TargetLanguageOption,
    keys,
    option,
    setting,
)
from bart_cli.config.generation import EvaluationConfig, GenerationConfig, Layer
from bart_cli.config.run import EvaluateConfig, FinetuneConfig
from bart_cli.errors import BartError
from bart_cli.progress import Reporter

if TYPE_CHECKING:
    from bart_cli.inference.load import InferenceModel
    from bart_cli.summarize.summarizer import Summarizer
    from bart_cli.tokenizer import Tokenizer

DEFAULT_MODEL = "facebook/bart-large-cnn"

BeamsOption = Annotated[int | None, setting(GenerationConfig, "beams")]
MaxLengthOption = Annotated[int | None, setting(GenerationConfig, "max_length")]
ModelOption = Annotated[
    str | None,
    option(
        "Run, model folder or hub id. Default: the environment variable BART_MODEL, "
        f"else {DEFAULT_MODEL}."
    ),
]


@dataclass(frozen=True)
class DecodingOptions:
    """Fields of EvaluationConfig and GenerationConfig; None means not given."""

    batch_size: Annotated[int | None, setting(EvaluationConfig, "batch_size")] = None
    max_tokens: Annotated[int | None, setting(EvaluationConfig, "max_tokens")] = None
    precision: Annotated[str | None, setting(EvaluationConfig, "precision", metavar="NAME")] = None
    device: Annotated[str | None, setting(EvaluationConfig, "device", metavar="NAME")] = None
    beams: BeamsOption = None
    length_penalty: Annotated[float | None, setting(GenerationConfig, "length_penalty")] = None
    min_length: Annotated[int | None, setting(GenerationConfig, "min_length")] = None
    max_length: MaxLengthOption = None
    no_repeat_ngram: Annotated[int | None, setting(GenerationConfig, "no_repeat_ngram")] = None
    early_stopping: Annotated[
        str | None, setting(GenerationConfig, "early_stopping", metavar="true|false|never")
    ] = None
    return_sequences: Annotated[int | None, setting(GenerationConfig, "return_sequences")] = None
    sample: Annotated[bool | None, setting(GenerationConfig, "sample", "--sample")] = None
    temperature: Annotated[float | None, setting(GenerationConfig, "temperature")] = None
    top_k: Annotated[int | None, setting(GenerationConfig, "top_k")] = None
    top_p: Annotated[float | None, setting(GenerationConfig, "top_p")] = None
    seed: Annotated[int | None, setting(GenerationConfig, "seed")] = None
    language: Annotated[str | None, setting(EvaluationConfig, "language")] = None
    source_language: SourceLanguageOption = None
    target_language: TargetLanguageOption = None


Saved = tuple[Sequence[Layer], Sequence[str]]  # decoding settings of a model, and warnings
# Limits that depend on other settings are relaxed until the settings of the model are known.
WIDEST = {"generation.beams": 64, "generation.max_length": 2**20}


def without_model(
    settings: ConfigOptions, kind: type[Config], options: Mapping[str, object]
) -> Config:
    """Build the configuration before the settings of a model are known, to check the options."""
    given = {key: value for key, value in options.items() if value is not None}
    return settings.load(kind, WIDEST | given)


def load_with_model(
    settings: ConfigOptions,
    kind: type[Config],
    options: Mapping[str, object],
    saved_of: Callable[[Config], Saved],
) -> tuple[Config, list[str]]:
    """Build the configuration on top of the decoding settings of a model; also return warnings.

    Options are checked before `saved_of` loads the settings of the model, given the configuration
    without them. The language for sentence splitting is taken from prepared pairs unless an option
    sets it.
    """
    early = without_model(settings, kind, options)
    layers, warnings = saved_of(early)
    if options.get("evaluation.language") is None:
        from bart_cli.data.pair_ids import language_of

        assert isinstance(early, EvaluateConfig | FinetuneConfig)
        options = {**options, "evaluation.language": language_of(early.data)}
    notices: list[str] = []
    config = settings.load(kind, options, saved=layers, notify=notices.append)
    if isinstance(config, EvaluateConfig) and config.model_path is not None:
        from bart_cli.model.formats import resolve_model
        from bart_cli.tokenizer import Tokenizer

        source = config.data.tokenizer or resolve_model(config.model_path)
        if Path(source).is_dir():
            update = first_token_for(config, layers, lambda: Tokenizer.from_pretrained(source))
            config = config.model_copy(update=update)
    return config, [*warnings, *notices]


def first_token_for(
    config: EvaluateConfig, layers: Sequence[Layer], tokenizer: Callable[[], Tokenizer]
) -> dict[str, object]:
    """Return updates that disable a <s> forced only by a preset if targets do not begin with it.

    Presets are written for facebook's models. In KoBART, <s> is the same as </s>: forcing it would
    end the summary.
    """
    generation, sources = config.generation, config.generation_sources
    forced = generation.forced_bos and sources["forced_bos"] != "options"
    if not forced or any(source == sources["forced_bos"] for source, _ in layers):
        return {}
    from bart_cli.inference.load import as_targets_begin

    generation, sources = as_targets_begin(tokenizer(), generation, sources)
    return {"generation": generation, "generation_sources": sources}


def saved_with(source: str | None, *, stated_only: bool = False) -> Saved:
    """Return the decoding settings saved with a model, if there is one.

    `stated_only`: without transformers' defaults for settings that the model does not state.
    """
    from bart_cli.model.formats import saved_generation

    saved = saved_generation(source) if source is not None else None
    return (saved.layers(stated_only=stated_only), saved.notices) if saved else ([], ())


def model_of(model: str | None) -> tuple[str, str]:
    """Return the model to use, and a prefix for error messages if BART_MODEL names it."""
    named = model or os.environ.get("BART_MODEL") or ""
    return named or DEFAULT_MODEL, "BART_MODEL: " if named and not model else ""


def load_summarizer(
    model: str | None,
    checkpoint: str | None,
    decoding: DecodingOptions,
    settings: ConfigOptions,
    reporter: Reporter,
) -> tuple[Summarizer, InferenceModel, EvaluationConfig]:
    """Load a model, with decoding settings from the model, --preset or --config, and options."""
    given = keys(decoding)
    early = without_model(settings, EvaluateConfig, given)  # before torch is imported
    evaluation = early.evaluation
    from bart_cli.data.sentences import AUTO
    from bart_cli.inference.load import (
        choose_precision,
        find_device,
        load_for_inference,
        recorded_language,
    )
    from bart_cli.model.formats import resolve_model
    from bart_cli.runtime.memory import keep_freed_memory
    from bart_cli.summarize.summarizer import Summarizer

    keep_freed_memory()
    device = find_device(evaluation.device)
    if evaluation.precision != "auto":  # reject an unsupported one before downloading a model
        choose_precision(evaluation.precision, device)
    source, origin = model_of(model)
    try:
        loaded = load_for_inference(
            str(resolve_model(source, checkpoint)),
            evaluation.precision,
            device=evaluation.device,
            source_language=early.data.source_language,
            target_language=early.data.target_language,
        )
    except BartError as error:
        error.message = origin + error.message
        raise
    if loaded.notice:
        reporter.info(loaded.notice)
    for notice in loaded.saved.notices if loaded.saved else ():
        reporter.warn(notice)
    layers = loaded.saved.layers() if loaded.saved else ()
    final = settings.load(EvaluateConfig, given, saved=layers, notify=reporter.warn)
    if loaded.saved is not None:
        update = first_token_for(final, layers, lambda: loaded.tokenizer)
        final = final.model_copy(update=update)
    language = evaluation.language
    if language == AUTO and decoding.language is None:
        language = recorded_language(source)
    generation, sources = final.generation, final.generation_sources
    summarizer = Summarizer(loaded, generation, sources=sources, language=language)
    return summarizer, loaded, evaluation
