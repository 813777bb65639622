"""Settings of training: optimizer, schedule, batches, precision, checkpoints, sharding."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from bart_cli.config.base import Section, refuse_idle
from bart_cli.errors import UsageError

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
Logger = Literal["tensorboard", "wandb", "mlflow", "trackio"]


class OptimizerConfig(Section):
    """The optimizer."""

    name: Literal["nvlamb", "adamw", "adafactor"] = Field("adamw", description="optimizer")
    learning_rate: float = Field(
        1e-4, gt=0, le=10, description="peak learning rate, reached at the end of warm-up"
    )
    beta1: float = Field(0.9, ge=0, lt=1, description="decay rate of the first moment")
    beta2: float = Field(0.999, ge=0, lt=1, description="decay rate of the second moment")
    epsilon: float = Field(
        1e-8, gt=0, le=1, description="added to the square root of the second moment"
    )
    weight_decay: float = Field(
        0.1, ge=0, le=10, description="decoupled weight decay; not applied to biases and LayerNorms"
    )
    decay_layer_norms: bool = Field(
        False, description="also apply weight decay to LayerNorm weights, like the reference"
    )
    clip_norm: float = Field(0.1, ge=0, description="maximum global gradient norm; 0: no clipping")
    trust_without_decay: bool = Field(
        False, description="NVLAMB: also apply the trust ratio to tensors without weight decay"
    )
    backend: Literal["auto", "torch", "apex"] = Field(
        "auto",
        description="kernels of nvlamb and adamw: torch, apex (NVIDIA's), or auto: apex if it is "
        "installed, for fp32 weights on a GPU; the results are the same",
    )

    @model_validator(mode="after")
    def _no_idle_settings(self) -> Self:
        if self.name == "adafactor":
            refuse_idle(self, ("beta1", "beta2", "epsilon"), "name=adafactor")
        if self.name != "nvlamb":
            refuse_idle(self, ("trust_without_decay",), f"name={self.name}")
        if not self.weight_decay:
            refuse_idle(self, ("decay_layer_norms",), "weight_decay=0")
        return self


class ScheduleConfig(Section):
    """The learning rate of steps 1, 2, …: linear warm-up, then decay to `end_learning_rate`."""

    name: Literal["polynomial", "linear", "cosine", "cosine_restarts", "constant"] = Field(
        "polynomial", description="decay after warm-up"
    )
    warmup_steps: int = Field(0, ge=0, description="steps of linear warm-up")
    warmup_ratio: float | None = Field(
        None, ge=0, le=1, description="warm-up as a share of all steps; overrides warmup_steps"
    )
    power: float = Field(1.0, gt=0, le=10, description="exponent of the polynomial decay")
    end_learning_rate: float = Field(0.0, ge=0, description="learning rate at the last step")
    cycles: int = Field(1, ge=1, description="number of cycles of cosine_restarts")

    @model_validator(mode="after")
    def _no_idle_settings(self) -> Self:
        condition = f"name={self.name}"
        if self.name != "polynomial":
            refuse_idle(self, ("power",), condition)
        if self.name != "cosine_restarts":
            refuse_idle(self, ("cycles",), condition)
        if self.name == "constant":
            refuse_idle(self, ("end_learning_rate",), condition)
        return self


class TrainingConfig(Section):
    """The training loop: steps, batches, precision, checkpoints and validation."""

    max_steps: int = Field(1000, ge=1, description="optimizer steps in total")
    epochs: float | None = Field(
        None, gt=0, description="number of passes over the training data; overrides max_steps"
    )
    global_batch: int = Field(
        64,
        ge=1,
        description="sequences per optimizer step, over all devices and accumulation steps",
    )
    micro_batch: int | Literal["auto"] = Field(
        8,
        description="sequences per device and forward pass, which determines gradient "
        "accumulation; auto: as many as fit in memory",
    )
    precision: Precision = Field(
        "fp32", description="precision of forward and backward: fp32, tf32, bf16 or fp16"
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="label smoothing factor")
    freeze_embeddings: bool = Field(False, description="freeze token and position embeddings")
    freeze_encoder: bool = Field(False, description="freeze the encoder")
    seed: int = Field(
        42, ge=0, lt=2**63, description="seed for weights, dropout, data order and noise"
    )
    log_every: int = Field(10, ge=1, description="steps between log lines in metrics.jsonl")
    loggers: tuple[Logger, ...] = Field(
        ("tensorboard",),
        description="trackers to log to besides metrics.jsonl: tensorboard, wandb, mlflow, trackio",
    )
    checkpoint_every: int | Literal["epoch"] = Field(
        500, description="steps between checkpoints; epoch: one epoch, in whole steps"
    )
    keep_last: int = Field(
        2,
        ge=1,
        description="newest checkpoints to keep; at least 2 are kept, because only a later step "
        "shows that the newest one is good",
    )
    keep_best: int = Field(
        0, ge=0, description="best checkpoints (by select_by) to keep in addition"
    )
    validate_every: int | Literal["epoch"] | None = Field(
        None, description="steps between validations; epoch: one epoch, in whole steps; null: none"
    )
    max_bad_steps: int = Field(
        10, ge=1, description="stop after this many consecutive steps with a non-finite loss"
    )
    patience: int | None = Field(
        None, ge=1, description="stop after this many validations without improvement; null: never"
    )
    select_by: Literal["loss", "rouge1", "rouge2", "rougeLsum"] = Field(
        "loss", description="metric that selects the best checkpoint"
    )
    time_limit: float | None = Field(
        None, gt=0, description="write a checkpoint and stop after this many minutes; null: never"
    )
    activation_checkpointing: bool = Field(
        False, description="recompute activations in backward: less memory, but slower"
    )
    half_precision_allreduce: bool = Field(
        False, description="all-reduce gradients in bf16 (in fp16 if the precision is fp16)"
    )
    sharding: Literal["none", "fsdp"] = Field(
        "none", description="fsdp: shard weights, gradients and optimizer state over ranks (FSDP2)"
    )
    parameters: Literal["fp32", "bf16"] = Field(
        "fp32", description="data type of the weights; bf16: nvlamb only, with fp32 master weights"
    )
    compile: bool | Literal["auto"] = Field(
        "auto",
        description="compile the model with torch.compile: true, false, or auto: on a GPU, if a "
        "trial step compiles",
    )

    @field_validator("loggers", mode="before")
    @classmethod
    def _names(cls, value: object) -> object:
        return [name for name in value.split(",") if name] if isinstance(value, str) else value

    @field_validator("micro_batch", "checkpoint_every", "validate_every", mode="before")
    @classmethod
    def _number_or_word(cls, value: object, info: ValidationInfo) -> object:
        if value is None and info.field_name == "validate_every":
            return None
        word = "auto" if info.field_name == "micro_batch" else "epoch"
        text = str(value)
        if text != word and not (text.isdecimal() and int(text)):
            raise ValueError(f"input should be an integer greater than or equal to 1, or {word}")
        return word if text == word else int(text)

    @property
    def micro_batch_size(self) -> int:
        """The micro-batch as a number.

        Raises:
            UsageError: it is `auto`, which only a training run can resolve.
        """
        if self.micro_batch == "auto":
            raise UsageError(
                "training.micro_batch=auto is only allowed in training runs", hint="Pass a number."
            )
        return self.micro_batch

    @model_validator(mode="after")
    def _batches(self) -> Self:
        if self.micro_batch != "auto" and self.micro_batch > self.global_batch:
            raise ValueError(
                f"micro_batch={self.micro_batch} is larger than global_batch={self.global_batch}"
            )
        if self.validate_every is None:
            refuse_idle(self, ("patience", "select_by", "keep_best"), "validate_every=null")
        return self
