"""How text is decoded, and how it is scored."""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from bart_cli.config.base import Section

DecodingPrecision = Literal["fp32", "tf32", "bf16", "fp16", "int8"]


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
    repetition_penalty: float = Field(1.0, gt=0, le=10, description="divides logits of used tokens")
    seed: int = Field(0, ge=0, lt=2**63, description="of sampling")

    @field_validator("early_stopping", mode="before")
    @classmethod
    def _known(cls, value: object) -> object:
        if value not in (True, False, "true", "false", "never"):
            raise ValueError("input should be true, false or 'never'")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
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


class EvaluationConfig(Section):
    """Scoring a model on pairs."""

    split: str = Field("test", description="which split to score")
    batch_size: int = Field(32, ge=1, description="articles decoded together")
    max_tokens: int | None = Field(
        None, ge=1, description="source tokens decoded together at most, padding included"
    )
    precision: DecodingPrecision = Field(
        "fp32", description="arithmetic of decoding: fp32, tf32, bf16, fp16, or int8 on a CPU"
    )
    device: str = Field(
        "auto",
        description="where to decode: cpu, cuda, cuda:N, or auto (a GPU when there is one)",
    )
    stemmer: bool = Field(True, description="Porter stemming before ROUGE compares words")
    limit: int | None = Field(None, ge=1, description="score the first N pairs only")
    bootstrap: int = Field(
        1000, ge=0, description="resamples for the confidence intervals; 0: none"
    )
    bleu: bool = Field(False, description="BLEU as well, by sacrebleu")

    @field_validator("device")
    @classmethod
    def _named(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
            raise ValueError("input should be auto, cpu, cuda or cuda:N")
        return value
