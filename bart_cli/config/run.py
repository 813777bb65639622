"""The configuration of each task, saved with every output as `config.yaml`."""

from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import model_validator

from bart_cli.config.base import Section, entry, refuse_idle
from bart_cli.config.data import DenoisingConfig, PretrainDataConfig, SummarizationDataConfig
from bart_cli.config.generation import EvaluationConfig, GenerationConfig
from bart_cli.config.model import ModelConfig
from bart_cli.config.training import OptimizerConfig, ScheduleConfig, TrainingConfig
from bart_cli.files import write_text


class PretrainConfig(Section):
    """Configuration of `bart pretrain`."""

    task: Literal["pretrain"] = "pretrain"
    description: str = entry("", "purpose of this run or preset")
    init_from: str | None = entry(None, "run, model folder or hub id of the initial weights")
    model: ModelConfig = entry(ModelConfig(), "architecture")
    data: PretrainDataConfig = entry(PretrainDataConfig(), "shards")
    denoising: DenoisingConfig = entry(DenoisingConfig(), "noise")
    optimizer: OptimizerConfig = entry(OptimizerConfig(), "optimizer")
    schedule: ScheduleConfig = entry(ScheduleConfig(), "learning rate")
    training: TrainingConfig = entry(TrainingConfig(), "training loop")

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
    description: str = entry("", "purpose of this run or preset")
    init_from: str | None = entry(
        None, "pre-trained model: run, model folder, hub id, `.ckpt` or fairseq `model.pt`"
    )
    keep_encoder_layers: tuple[int, ...] | None = entry(
        None, "encoder layers to keep, for distillation (shrink and fine-tune)"
    )
    keep_decoder_layers: tuple[int, ...] | None = entry(
        None, "decoder layers to keep, for distillation (shrink and fine-tune)"
    )
    model: ModelConfig = entry(
        ModelConfig(), "architecture; with `init_from`, only dropout and LayerDrop rates apply"
    )
    data: SummarizationDataConfig = entry(SummarizationDataConfig(), "pairs")
    optimizer: OptimizerConfig = entry(OptimizerConfig(), "optimizer")
    schedule: ScheduleConfig = entry(ScheduleConfig(), "learning rate")
    training: TrainingConfig = entry(TrainingConfig(), "training loop")
    generation: GenerationConfig = entry(GenerationConfig(), "decoding")
    generation_sources: dict[str, str] = entry(
        {}, "source of each decoding setting; written for the record, ignored on input"
    )
    evaluation: EvaluationConfig = entry(EvaluationConfig(), "scoring")

    @model_validator(mode="after")
    def _no_idle_settings(self) -> Self:
        if self.training.validate_every is None:
            unused = ("data.n_validation", "data.max_validation_target_length")
            refuse_idle(self, unused, "training.validate_every=null")
        return self


class EvaluateConfig(Section):
    """Configuration of `bart evaluate`."""

    task: Literal["evaluate"] = "evaluate"
    description: str = entry("", "purpose of this run or preset")
    model_path: str | None = entry(None, "run, model folder or hub id to evaluate")
    predictions: Path | None = entry(
        None,
        "existing summaries to score instead of a model: JSON lines with the field "
        "`prediction` (or `summary`), or a text file with one summary per line",
    )
    data: SummarizationDataConfig = entry(SummarizationDataConfig(), "pairs")
    generation: GenerationConfig = entry(GenerationConfig(), "decoding")
    generation_sources: dict[str, str] = entry(
        {}, "source of each decoding setting; written for the record, ignored on input"
    )
    evaluation: EvaluationConfig = entry(EvaluationConfig(), "scoring")


def save_config(config: Section, path: Path) -> None:
    """Write a configuration as YAML, which `--config` reads back to an equal configuration."""
    write_text(
        path, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    )
