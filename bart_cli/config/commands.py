"""Settings of `bart benchmark`, `export`, `serve` and `summarize`."""

from typing import Literal, Self

from pydantic import model_validator

from bart_cli.config.base import Section, entry, refuse_idle


class BenchmarkConfig(Section):
    """How `bart benchmark` measures each row of its tables."""

    repeats: int = entry(30, "maximum measurements per row", ge=1, le=100_000)
    seconds: float = entry(
        10.0,
        "seconds after which to stop measuring a row, after at least 3 measurements",
        gt=0,
        le=86_400,
    )
    warm_up: int = entry(2, "warm-up runs that are not measured", ge=0)
    lengths: Literal["real", "full"] = entry(
        "real",
        "lengths of random inputs: real: distributed as in CNN-DailyMail; full: all at the maximum",
    )
    accumulation: int = entry(1, "micro-batches per training step", ge=1)
    seed: int = entry(0, "seed for weights, lengths and tokens", ge=0, lt=2**63)
    compare: Literal["none", "transformers"] = entry(
        "none", "library to compare with bart, in separate processes"
    )
    profile: bool = entry(False, "write a torch profiler trace of each case's largest batch")


ExportFormat = Literal["huggingface", "reference", "ctranslate2", "onnx"]
ExportDtype = Literal["fp32", "bf16", "fp16"]


class ExportConfig(Section):
    """Format and content of an exported model."""

    format: ExportFormat = entry(
        "huggingface",
        "huggingface: a folder for transformers (Bart for post-LN models, MBart for "
        "Pre-LN models); reference: NVIDIA's final_step.ckpt with config.json; "
        "ctranslate2: a folder for CTranslate2; onnx: the forward pass as model.onnx",
    )
    dtype: ExportDtype = entry("fp32", "data type of the weights: fp32, bf16 or fp16")
    average: int = entry(1, "average the weights of a run's newest N checkpoints", ge=1)
    tokenizer: str | None = entry(None, "tokenizer folder or hub id, if the model has no tokenizer")
    push: str | None = entry(
        None,
        "upload the export to this repository of the Hugging Face hub, USER/NAME, "
        "which is created if it does not exist",
    )
    private: bool = entry(
        False, "create a private repository, visible only to you and your organization"
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

    host: str = entry("127.0.0.1", "address to listen on")
    port: int = entry(8000, "port to listen on; 0: any free port", ge=0, le=65535)
    name: str | None = entry(
        None,
        "name of the model in responses; default: its hub id or the name of its folder",
        min_length=1,
    )
    workers: int | None = entry(
        None, "worker processes; default: one per GPU, or one on a CPU", ge=1, le=64
    )
    max_queue: int = entry(256, "maximum texts in the queue; more get status 429", ge=1, le=100_000)
    max_texts: int = entry(64, "maximum texts per request", ge=1, le=10_000)
    max_bytes: int = entry(4 * 2**20, "maximum size of a request body, in bytes", ge=1024, le=2**30)
    max_beams: int = entry(16, "maximum beams, and summaries per text, in a request", ge=1, le=64)
    timeout: float = entry(
        300.0, "time limit of a request in seconds, including queueing", gt=0, le=86_400
    )


LongText = Literal["truncate", "chunk", "reduce"]
OutputFormat = Literal["text", "jsonl", "json"]


class SummarizeConfig(Section):
    """Settings of `bart summarize` other than decoding."""

    jsonl: bool = entry(False, "read every input, including standard input, as JSON lines")
    field: str | None = entry(
        None,
        "JSON field with the text; default: the first of article, document, text, "
        "dialogue and other usual names",
    )
    long: LongText = entry(
        "truncate",
        "how to read texts longer than the model's maximum: truncate: read only the beginning; "
        "chunk: split at sentence ends, summarize each piece and join the summaries; reduce: like "
        "chunk, but summarize the joined summaries again until they fit in one piece",
    )
    format: OutputFormat | None = entry(
        None,
        "format: text, jsonl (one record per line) or json (one list); default: from "
        "the suffix of --out, else jsonl for .jsonl inputs, else text",
    )
