"""Settings of `bart export`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from bart_cli.config.base import Section, refuse_idle

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
