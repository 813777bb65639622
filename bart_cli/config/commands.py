"""Settings of `bart benchmark`, `export`, `serve` and `summarize`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from bart_cli.config.base import Section, refuse_idle


class BenchmarkConfig(Section):
    """How `bart benchmark` measures each row of its tables."""

    repeats: int = Field(30, ge=1, le=100_000, description="maximum measurements per row")
    seconds: float = Field(
        10.0,
        gt=0,
        description="seconds after which to stop measuring a row, after at least 3 measurements",
    )
    warm_up: int = Field(2, ge=0, description="warm-up runs that are not measured")
    lengths: Literal["real", "full"] = Field(
        "real",
        description="lengths of random inputs: real: distributed as in CNN-DailyMail; full: all "
        "at the maximum",
    )
    accumulation: int = Field(1, ge=1, description="micro-batches per training step")
    seed: int = Field(0, ge=0, lt=2**63, description="seed for weights, lengths and tokens")
    compare: Literal["none", "transformers"] = Field(
        "none", description="library to compare with bart, in separate processes"
    )
    profile: bool = Field(
        False, description="write a torch profiler trace of each case's largest batch"
    )


ExportFormat = Literal["huggingface", "reference", "ctranslate2", "onnx"]
ExportDtype = Literal["fp32", "bf16", "fp16"]


class ExportConfig(Section):
    """Format and content of an exported model."""

    format: ExportFormat = Field(
        "huggingface",
        description="huggingface: a folder for transformers (Bart for post-LN models, MBart for "
        "Pre-LN models); reference: NVIDIA's final_step.ckpt with config.json; "
        "ctranslate2: a folder for CTranslate2; onnx: the forward pass as model.onnx",
    )
    dtype: ExportDtype = Field("fp32", description="data type of the weights: fp32, bf16 or fp16")
    average: int = Field(1, ge=1, description="average the weights of a run's newest N checkpoints")
    tokenizer: str | None = Field(
        None, description="tokenizer folder or hub id, if the model has no tokenizer"
    )
    push: str | None = Field(
        None,
        description="upload the export to this repository of the Hugging Face hub, USER/NAME, "
        "which is created if it does not exist",
    )
    private: bool = Field(
        False, description="create a private repository, visible only to you and your organization"
    )

    @model_validator(mode="after")
    def _no_idle_settings(self) -> Self:
        if self.push is None:
            refuse_idle(self, ("private",), "push=null")
        if self.format == "onnx" and self.dtype != "fp32":
            raise ValueError(f"dtype={self.dtype}: format=onnx is written in fp32 only")
        return self


class ServeConfig(Section):
    """Settings of `bart serve` other than decoding."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0: any free port")
    name: str | None = Field(
        None,
        min_length=1,
        description="name of the model in responses; default: its hub id or the name of its folder",
    )
    workers: int | None = Field(
        None, ge=1, le=64, description="worker processes; default: one per GPU, or one on a CPU"
    )
    max_queue: int = Field(
        256, ge=1, le=100_000, description="maximum texts in the queue; more get status 429"
    )
    max_texts: int = Field(64, ge=1, le=10_000, description="maximum texts per request")
    max_bytes: int = Field(
        4 * 2**20, ge=1024, le=2**30, description="maximum size of a request body, in bytes"
    )
    max_beams: int = Field(
        16, ge=1, le=64, description="maximum beams, and summaries per text, in a request"
    )
    timeout: float = Field(
        300.0, gt=0, le=86_400, description="time limit of a request in seconds, including queueing"
    )


LongText = Literal["truncate", "chunk", "reduce"]
OutputFormat = Literal["text", "jsonl", "json"]


class SummarizeConfig(Section):
    """Settings of `bart summarize` other than decoding."""

    jsonl: bool = Field(
        False, description="read every input, including standard input, as JSON lines"
    )
    field: str | None = Field(
        None,
        description="JSON field with the text; default: the first of article, document, text, "
        "dialogue and other usual names",
    )
    long: LongText = Field(
        "truncate",
        description="how to read texts longer than the model's maximum: truncate: read only the "
        "beginning; chunk: split at sentence ends, summarize each piece and join the "
        "summaries; reduce: like chunk, but summarize the joined summaries again until "
        "they fit in one piece",
    )
    format: OutputFormat | None = Field(
        None,
        description="format: text, jsonl (one record per line) or json (one list); default: from "
        "the suffix of --out, else jsonl for .jsonl inputs, else text",
    )
