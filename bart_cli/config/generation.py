"""How text is decoded, where each decoding setting comes from, and how text is scored."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from bart_cli.config.base import Section
from bart_cli.config.data import LANGUAGE_HELP, check_language
from bart_cli.errors import UsageError

RougeTokenizer = Literal["ascii", "unicode"]
DecodingPrecision = Literal["fp32", "tf32", "bf16", "fp16", "int8", "auto"]
Layer = tuple[str, Mapping[str, object]]
TokenId = Annotated[int, Field(ge=0)]
Ids = Annotated[tuple[TokenId, ...], Field(min_length=1)]


class GenerationConfig(Section):
    """Decoding, with the meanings of Hugging Face's `generate`. Lengths count the start token."""

    beams: int = Field(4, ge=1, le=64, description="beams; 1: greedy (or sampling)")
    length_penalty: float = Field(
        2.0, ge=-10, le=10, description="score = log-likelihood / length ** penalty"
    )
    min_length: int = Field(0, ge=0, description="no </s> before this many tokens")
    max_length: int = Field(142, ge=2, description="tokens of a hypothesis at most")
    no_repeat_ngram: int = Field(3, ge=0, description="n-grams that may occur once only; 0: off")
    early_stopping: bool | Literal["never"] = Field(
        True,
        description="true: stop at `beams` finished hypotheses; false: heuristic; never: exact",
    )
    forced_bos: bool = Field(True, description="the first generated token is <s>")
    forced_eos: bool = Field(True, description="the last possible token is </s>")
    return_sequences: int = Field(1, ge=1, le=64, description="hypotheses per article")
    sample: bool = Field(False, description="draw tokens instead of taking the best")
    temperature: float = Field(1.0, gt=0, le=100, description="of sampling")
    top_k: int = Field(0, ge=0, description="sampling: the k most likely tokens only; 0: off")
    top_p: float = Field(1.0, gt=0, le=1, description="sampling: the smallest set of this mass")
    min_p: float | None = Field(
        None,
        ge=0,
        le=1,
        description="sampling: tokens of at least this share of the best one's mass",
    )
    typical_p: float = Field(1.0, gt=0, le=1, description="sampling: the most typical of this mass")
    top_h: float | None = Field(
        None, gt=0, le=1, description="sampling: the best tokens up to this share of the entropy"
    )
    epsilon_cutoff: float = Field(
        0.0, ge=0, lt=1, description="sampling: tokens of at least this probability; 0: off"
    )
    eta_cutoff: float = Field(
        0.0, ge=0, lt=1, description="sampling: as epsilon_cutoff, lower at high entropy; 0: off"
    )
    repetition_penalty: float = Field(1.0, gt=0, le=10, description="divides logits of used tokens")
    encoder_repetition_penalty: float = Field(
        1.0, gt=0, le=10, description="multiplies logits of tokens of the article"
    )
    encoder_no_repeat_ngram: int = Field(
        0, ge=0, description="n-grams of the article of this size are forbidden; 0: off"
    )
    exponential_decay_length_penalty: tuple[int, float] | None = Field(
        None, description="[start, factor]: raise the score of </s> after `start` tokens"
    )
    sequence_bias: tuple[tuple[Ids, float], ...] = Field(
        (), description="[[ids, bias], ...]: added to the score of the last id after the others"
    )
    bad_words: tuple[Ids, ...] = Field((), description="sequences of ids that may not occur")
    suppress_tokens: tuple[TokenId, ...] = Field((), description="ids that may not occur")
    begin_suppress_tokens: tuple[TokenId, ...] = Field(
        (), description="ids that may not come first (after a forced first token)"
    )
    renormalize_logits: bool = Field(
        False, description="make scores log-probabilities again after all constraints"
    )
    start_token: TokenId | None = Field(
        None, description="id that the decoder starts with; null: the model's"
    )
    forced_bos_token: TokenId | None = Field(
        None, description="id that forced_bos forces; null: <s>"
    )
    end_tokens: tuple[TokenId, ...] | None = Field(
        None, description="ids that end a hypothesis; null: </s>"
    )
    forced_eos_tokens: tuple[TokenId, ...] | None = Field(
        None, description="ids that forced_eos allows; null: </s>"
    )
    seed: int = Field(0, ge=0, lt=2**63, description="of sampling")

    @field_validator("early_stopping", mode="before")
    @classmethod
    def _known(cls, value: object) -> object:
        if value not in (True, False, "true", "false", "never"):
            raise ValueError("input should be true, false or 'never'")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.forced_bos and self.forced_bos_token in self.suppress_tokens:
            raise ValueError(f"suppress_tokens holds the forced token {self.forced_bos_token}")
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


@dataclass(frozen=True)
class SavedGeneration:
    """Decoding settings of a model folder, by field of GenerationConfig.

    source: the file. values: all that transformers would use, its defaults included. stated: the
    fields that the file itself names. notices: what differs from transformers, or was changed.
    """

    source: str
    values: Mapping[str, object]
    stated: frozenset[str]
    notices: tuple[str, ...] = ()

    @property
    def config(self) -> GenerationConfig:
        """The settings as a whole."""
        return GenerationConfig.model_validate(self.values)

    def layers(self, *, stated_only: bool = False) -> list[Layer]:
        """The settings for `resolve_generation`."""
        own = {name: self.values[name] for name in self.values if name in self.stated}
        rest = {name: self.values[name] for name in self.values if name not in self.stated}
        default = [] if stated_only else [(f"transformers' default ({self.source})", rest)]
        return [*default, (self.source, own)]


@dataclass(frozen=True)
class ResolvedGeneration:
    """values: fields of GenerationConfig. sources: where each came from."""

    values: dict[str, object]
    sources: dict[str, str]
    notices: tuple[str, ...]


def resolve_generation(layers: Sequence[Layer]) -> ResolvedGeneration:
    """Lay decoding settings over one another; the last layer wins.

    A minimum length of an earlier layer yields to the maximum length of a later one.

    Args:
        layers: (source, field -> value), the defaults come before them.

    Raises:
        UsageError: a minimum length above the maximum length of an earlier layer.
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
    return ResolvedGeneration(values, sources, tuple(notices))


class EvaluationConfig(Section):
    """Scoring a model on pairs."""

    split: str = Field("test", description="which split to score")
    batch_size: int = Field(32, ge=1, description="articles decoded together")
    max_tokens: int | None = Field(
        None, ge=1, description="source tokens decoded together at most, padding included"
    )
    precision: DecodingPrecision = Field(
        "fp32",
        description="arithmetic of decoding: fp32, tf32, bf16, fp16, int8 (CPU), or auto, "
        "the fastest here",
    )
    device: str = Field(
        "auto",
        description="where to decode: cpu, cuda, cuda:N, or auto (a GPU when there is one)",
    )
    stemmer: bool = Field(True, description="Porter stemming before ROUGE compares words")
    tokenizer: RougeTokenizer = Field(
        "ascii",
        description="words that ROUGE compares: ascii (a-z and 0-9 only, as in published scores), "
        "or unicode: words of any script, single characters in Chinese, Japanese and Thai",
    )
    language: str = Field("auto", description=LANGUAGE_HELP)
    limit: int | None = Field(None, ge=1, description="score the first N pairs only")
    bootstrap: int = Field(
        1000, ge=0, description="resamples for the confidence intervals; 0: none"
    )
    bleu: bool = Field(False, description="BLEU as well, by sacrebleu")

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
