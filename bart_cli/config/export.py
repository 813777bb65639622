"""Settings of `bart export`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bart_cli.config.base import Section

ExportFormat = Literal["huggingface", "reference"]
ExportDtype = Literal["fp32", "bf16", "fp16"]


class ExportConfig(Section):
    """Format and content of an exported model."""

    format: ExportFormat = Field(
        "huggingface",
        description="huggingface: a folder for transformers (Bart for post-LN models, MBart for "
        "Pre-LN models); reference: NVIDIA's final_step.ckpt with config.json",
    )
    dtype: ExportDtype = Field("fp32", description="data type of the weights: fp32, bf16 or fp16")
    average: int = Field(1, ge=1, description="average the weights of a run's newest N checkpoints")
    tokenizer: str | None = Field(
        None, description="tokenizer folder or hub id, if the model has no tokenizer"
    )
