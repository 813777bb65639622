"""The configuration of each task, saved with every output as `config.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import Field, model_validator

from bart_cli.config.base import Section, refuse_idle
from bart_cli.config.data import DenoisingConfig, PretrainDataConfig, SummarizationDataConfig
from bart_cli.config.generation import EvaluationConfig, GenerationConfig
from bart_cli.config.model import ModelConfig
from bart_cli.config.training import OptimizerConfig, ScheduleConfig, TrainingConfig
from bart_cli.files import write_text


class PretrainConfig(Section):
    """Configuration of `bart pretrain`."""

    task: Literal["pretrain"] = "pretrain"
    description: str = Field("", description="purpose of this run or preset")
    init_from: str | None = Field(
        None, description="run, model folder or hub id of the initial weights"
    )
    model: ModelConfig = Field(ModelConfig(), description="architecture")
    data: PretrainDataConfig = Field(PretrainDataConfig(), description="shards")
    denoising: DenoisingConfig = Field(DenoisingConfig(), description="noise")
    optimizer: OptimizerConfig = Field(OptimizerConfig(), description="optimizer")
    schedule: ScheduleConfig = Field(ScheduleConfig(), description="learning rate")
    training: TrainingConfig = Field(TrainingConfig(), description="training loop")

    @model_validator(mode="after")
    def _no_idle_settings(self) -> Self:
        if self.training.validate_every is None:
            refuse_idle(self, ("data.validation_path",), "training.validate_every=null")
        else:  # pre-training validates by its loss only
            refuse_idle(self, ("training.select_by",), "task=pretrain")
        return self


class FinetuneConfig(Section):
    """Configuration of `bart finetune`. Without `init_from`, the initial weights are random."""

    task: Literal["finetune"] = "finetune"
    description: str = Field("", description="purpose of this run or preset")
    init_from: str | None = Field(
        None,
        description="pre-trained model: run, model folder, hub id, `.ckpt` or fairseq `model.pt`",
    )
    keep_encoder_layers: tuple[int, ...] | None = Field(
        None, description="encoder layers to keep, for distillation (shrink and fine-tune)"
    )
    keep_decoder_layers: tuple[int, ...] | None = Field(
        None, description="decoder layers to keep, for distillation (shrink and fine-tune)"
    )
    model: ModelConfig = Field(
        ModelConfig(),
        description="architecture; with `init_from`, only dropout and LayerDrop rates apply",
    )
    data: SummarizationDataConfig = Field(SummarizationDataConfig(), description="pairs")
    optimizer: OptimizerConfig = Field(OptimizerConfig(), description="optimizer")
    schedule: ScheduleConfig = Field(ScheduleConfig(), description="learning rate")
    training: TrainingConfig = Field(TrainingConfig(), description="training loop")
    generation: GenerationConfig = Field(GenerationConfig(), description="decoding")
    generation_sources: dict[str, str] = Field(
        {}, description="source of each decoding setting; written for the record, ignored on input"
    )
    evaluation: EvaluationConfig = Field(EvaluationConfig(), description="scoring")

    @model_validator(mode="after")
    def _no_idle_settings(self) -> Self:
        if self.training.validate_every is None:
            unused = ("data.n_validation", "data.max_validation_target_length")
            refuse_idle(self, unused, "training.validate_every=null")
        return self


class EvaluateConfig(Section):
    """Configuration of `bart evaluate`."""

    task: Literal["evaluate"] = "evaluate"
    description: str = Field("", description="purpose of this run or preset")
    model_path: str | None = Field(None, description="run, model folder or hub id to evaluate")
    predictions: Path | None = Field(
        None,
        description="existing summaries to score instead of a model: JSON lines with the field "
        "`prediction` (or `summary`), or a text file with one summary per line",
    )
    data: SummarizationDataConfig = Field(SummarizationDataConfig(), description="pairs")
    generation: GenerationConfig = Field(GenerationConfig(), description="decoding")
    generation_sources: dict[str, str] = Field(
        {}, description="source of each decoding setting; written for the record, ignored on input"
    )
    evaluation: EvaluationConfig = Field(EvaluationConfig(), description="scoring")


def save_config(config: Section, path: Path) -> None:
    """Write a configuration as YAML, which `--config` reads back to an equal configuration."""
    write_text(
        path, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    )
