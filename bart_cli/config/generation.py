"""Settings of decoding, with the source of each, and of evaluation."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from bart_cli.config.base import Section, entry, refuse_idle
from bart_cli.config.data import LANGUAGE_HELP, check_language
from bart_cli.errors import UsageError

RougeTokenizer = Literal["ascii", "unicode"]
ROUGE = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L", "rougeLsum": "ROUGE-Lsum"}
Metric = Literal["bertscore", "novelty", "compression", "repetition", "coverage"]
DecodingPrecision = Literal["fp32", "tf32", "bf16", "fp16", "int8", "auto"]
Layer = tuple[str, Mapping[str, object]]
TokenId = Annotated[int, Field(ge=0)]
SAMPLING = "temperature top_k top_p min_p typical_p top_h epsilon_cutoff eta_cutoff".split()
Ids = Annotated[tuple[TokenId, ...], Field(min_length=1)]


class GenerationConfig(Section):
    """Decoding, as in Hugging Face's `generate`. Lengths include the start token."""

    beams: int = entry(4, "number of beams; 1: greedy search (or sampling)", ge=1, le=64)
    length_penalty: float = entry(
        2.0,
        "exponent p in score = log-likelihood / length ** p; positive values favor "
        "longer summaries",
        ge=-10,
        le=10,
    )
    min_length: int = entry(0, "minimum tokens before </s>", ge=0)
    max_length: int = entry(142, "maximum tokens per summary", ge=2)
    no_repeat_ngram: int = entry(3, "size of n-grams that must not repeat; 0: off", ge=0)
    early_stopping: bool | Literal["never"] = entry(
        True,
        "when to stop: true: when `beams` hypotheses are finished; false: when a "
        "better one is unlikely; never: only when a better one is impossible",
    )
    forced_bos: bool = entry(True, "force <s> as the first generated token")
    forced_eos: bool = entry(True, "force </s> at the maximum length")
    return_sequences: int = entry(1, "summaries to return per article", ge=1, le=64)
    sample: bool = entry(False, "sample tokens instead of choosing the most likely ones")
    temperature: float = entry(1.0, "sampling temperature", ge=1e-6, le=100)
    top_k: int = entry(0, "sampling: keep the k most likely tokens; 0: off", ge=0)
    top_p: float = entry(
        1.0, "sampling: keep the smallest set of tokens with this total probability", gt=0, le=1
    )
    min_p: float | None = entry(
        None, "sampling: keep tokens with at least this share of the top probability", ge=0, le=1
    )
    typical_p: float = entry(
        1.0, "sampling: keep the most typical tokens with this total probability", gt=0, le=1
    )
    top_h: float | None = entry(
        None, "sampling: keep the top tokens up to this share of the entropy", gt=0, le=1
    )
    epsilon_cutoff: float = entry(
        0.0, "sampling: keep tokens with at least this probability; 0: off", ge=0, lt=1
    )
    eta_cutoff: float = entry(
        0.0, "sampling: like epsilon_cutoff, but lower at high entropy; 0: off", ge=0, lt=1
    )
    repetition_penalty: float = entry(
        1.0, "penalty for tokens that already occurred; 1: off", gt=0, le=10
    )
    encoder_repetition_penalty: float = entry(
        1.0, "bonus for tokens of the article; 1: off", gt=0, le=10
    )
    encoder_no_repeat_ngram: int = entry(
        0, "size of n-grams that must not be copied from the article; 0: off", ge=0
    )
    exponential_decay_length_penalty: tuple[int, float] | None = entry(
        None, "[start, factor]: raise the score of </s> exponentially after `start` tokens"
    )
    sequence_bias: tuple[tuple[Ids, float], ...] = entry(
        (), "[[ids, bias], …]: bias added to the last id when it follows the others"
    )
    bad_words: tuple[Ids, ...] = entry((), "sequences of token ids that must not occur")
    suppress_tokens: tuple[TokenId, ...] = entry((), "token ids that must not occur")
    begin_suppress_tokens: tuple[TokenId, ...] = entry(
        (), "token ids that must not come first (or second, after a forced token)"
    )
    renormalize_logits: bool = entry(False, "renormalize log-probabilities after all constraints")
    start_token: TokenId | None = entry(
        None, "first input of the decoder, as a token id; null: the model's"
    )
    forced_bos_token: TokenId | None = entry(None, "token id that forced_bos forces; null: <s>")
    end_tokens: tuple[TokenId, ...] | None = entry(None, "token ids that end a summary; null: </s>")
    forced_eos_tokens: tuple[TokenId, ...] | None = entry(
        None, "token ids that forced_eos forces; null: </s>"
    )
    seed: int = entry(0, "sampling seed", ge=0, lt=2**63)

    @field_validator("early_stopping", mode="before")
    @classmethod
    def _known(cls, value: object) -> object:
        if value not in (True, False, "true", "false", "never"):
            raise ValueError("input should be true, false or 'never'")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.forced_bos and self.forced_bos_token in self.suppress_tokens:
            raise ValueError(f"suppress_tokens contains the forced token {self.forced_bos_token}")
        if self.min_length > self.max_length:
            raise ValueError(
                f"min_length={self.min_length} is larger than max_length={self.max_length}"
            )
        if self.return_sequences > self.beams and not (self.sample and self.beams == 1):
            raise ValueError(
                f"return_sequences={self.return_sequences} needs at least as many beams "
                f"(beams={self.beams}), or sample=true with beams=1"
            )
        return self


def check_ids(generation: GenerationConfig, vocab_size: int, positions: int) -> str | None:
    """Return the reason why the model cannot decode with these settings, or None.

    On a GPU, an id outside the vocabulary would cause a device error, which ends the process.
    """
    if generation.max_length > positions:
        return f"max_length={generation.max_length} exceeds the model's {positions} positions"
    fields: dict[str, Sequence[int | None]] = {
        "sequence_bias": [i for ids, _ in generation.sequence_bias for i in ids],
        "bad_words": [i for ids in generation.bad_words for i in ids],
        "suppress_tokens": generation.suppress_tokens,
        "begin_suppress_tokens": generation.begin_suppress_tokens,
        "start_token": [generation.start_token],
        "forced_bos_token": [generation.forced_bos_token],
        "end_tokens": generation.end_tokens or (),
        "forced_eos_tokens": generation.forced_eos_tokens or (),
    }
    for name, ids in fields.items():
        for i in ids:
            if i is not None and i >= vocab_size:
                return f"{name} contains {i}, but the vocabulary has {vocab_size} tokens"
    return None


@dataclass(frozen=True)
class SavedGeneration:
    """Decoding settings of a model folder, by field of GenerationConfig."""

    source: str  # name of the file
    values: Mapping[str, object]  # all settings that transformers would use, including its defaults
    stated: frozenset[str]  # the fields that the file sets
    # messages about differences from transformers and about changed values
    notices: tuple[str, ...] = ()

    @property
    def config(self) -> GenerationConfig:
        return GenerationConfig.model_validate(self.values)

    def layers(self, *, stated_only: bool = False) -> list[Layer]:
        """Return layers for `resolve_generation`; `stated_only`: without transformers' defaults."""
        own = {name: self.values[name] for name in self.values if name in self.stated}
        rest = {name: self.values[name] for name in self.values if name not in self.stated}
        default = [] if stated_only else [(f"transformers' default ({self.source})", rest)]
        return [*default, (self.source, own)]


def resolve_generation(
    layers: Sequence[Layer],
) -> tuple[dict[str, object], dict[str, str], list[str]]:
    """Merge layers of decoding settings; the last layer wins.

    A minimum length is lowered to a smaller maximum length of a later layer.

    Args:
        layers: (source, field -> value) pairs, applied on top of the defaults.

    Returns:
        the values and the sources by field of GenerationConfig, and messages about changed values.
    """
    values: dict[str, object] = {}
    sources: dict[str, str] = {}
    level: dict[str, int] = {}
    for number, (source, layer) in enumerate(
        [("default", GenerationConfig().model_dump()), *layers]
    ):
        values |= layer
        sources |= dict.fromkeys(layer, source)
        level |= dict.fromkeys(layer, number)
    low, high = values["min_length"], values["max_length"]
    notices = []
    for name in SAMPLING if not values["sample"] else ():
        if sources[name] == "options" and values[name] != GenerationConfig().model_dump()[name]:
            raise UsageError(
                f"{name}={values[name]} has no effect without sampling",
                hint="Add --set generation.sample=true.",
            )
    if isinstance(low, int) and isinstance(high, int) and low > high:
        both = (
            f"min_length={low} ({sources['min_length']}), "
            f"max_length={high} ({sources['max_length']})"
        )
        if level["min_length"] > level["max_length"]:
            raise UsageError(
                f"min_length is larger than max_length: {both}", hint="Pass --max-length too."
            )
        if level["min_length"] < level["max_length"]:
            notices.append(f"min_length is lowered to max_length: {both}")
            values["min_length"] = high
            sources["min_length"] += f", lowered to max_length ({sources['max_length']})"
    return values, sources, notices


class EvaluationConfig(Section):
    """How a model is scored on pairs."""

    split: str = entry("test", "split to score")
    batch_size: int = entry(32, "articles per batch", ge=1)
    max_tokens: int | None = entry(None, "maximum source tokens per batch, including padding", ge=1)
    precision: DecodingPrecision = entry(
        "fp32", "precision: fp32, tf32, bf16, fp16, int8 (CPU only), or auto (the fastest)"
    )
    device: str = entry("auto", "device: cpu, cuda, cuda:N, or auto (a GPU if there is one)")
    stemmer: bool = entry(True, "apply the Porter stemmer before ROUGE compares words")
    tokenizer: RougeTokenizer = entry(
        "ascii",
        "how ROUGE splits text into words: ascii: only a-z and 0-9, as in published "
        "scores; unicode: words of any script, single characters in Chinese, Japanese and Thai",
    )
    language: str = entry("auto", LANGUAGE_HELP)
    limit: int | None = entry(None, "score only the first N pairs", ge=1, le=10**9)
    bootstrap: int = entry(1000, "bootstrap resamples for confidence intervals; 0: none", ge=0)
    bleu: bool = entry(False, "also compute BLEU (sacrebleu)")
    metrics: tuple[Metric, ...] = entry(
        (),
        "metrics besides ROUGE: bertscore: similarity of token vectors; novelty: "
        "n-grams not in the article; compression: words of the article per word of the summary; "
        "repetition: repeated n-grams; coverage: names and numbers that are also in the article",
    )
    bertscore_model: str = entry(
        "FacebookAI/roberta-large", "encoder for BERTScore: hub id or folder"
    )
    bertscore_layer: int | None = entry(
        None, "encoder layer for BERTScore; default: the usual one for the model", ge=0
    )

    @model_validator(mode="after")
    def _no_idle_settings(self) -> Self:
        if "bertscore" not in self.metrics:
            refuse_idle(self, ("bertscore_model", "bertscore_layer"), "metrics without bertscore")
        return self

    @field_validator("language")
    @classmethod
    def _code(cls, value: str) -> str:
        return check_language(value)

    @field_validator("device")
    @classmethod
    def _named(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
            raise ValueError("input should be auto, cpu, cuda or cuda:N")
        return value
