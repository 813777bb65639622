"""How `bart export` writes a model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bart_cli.config.base import Section

ExportFormat = Literal["huggingface", "reference"]
ExportDtype = Literal["fp32", "bf16", "fp16"]


class ExportConfig(Section):
    """`bart export`."""

    format: ExportFormat = Field(
        "huggingface",
        description="huggingface: a folder for transformers, BART's layout for post-LN models, "
        "mBART's for Pre-LN ones; reference: NVIDIA's final_step.ckpt with config.json",
    )
    dtype: ExportDtype = Field("fp32", description="data type of the weights: fp32, bf16 or fp16")
    average: int = Field(1, ge=1, description="average the weights of a run's newest N checkpoints")
    tokenizer: str | None = Field(
        None, description="tokenizer folder or hub id, for models without one"
    )
