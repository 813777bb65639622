"""Settings of training: optimizer, schedule, batches, precision, checkpoints, sharding."""

from typing import Literal, Self

from pydantic import ValidationInfo, field_validator, model_validator

from bart_cli.config.base import Section, entry, refuse_idle
from bart_cli.errors import UsageError

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
Logger = Literal["tensorboard", "wandb", "mlflow", "trackio"]


class OptimizerConfig(Section):
    """The optimizer."""

    name: Literal["nvlamb", "adamw", "adafactor"] = entry("adamw", "optimizer")
    learning_rate: float = entry(
        1e-4, "peak learning rate, reached at the end of warm-up", gt=0, le=10
    )
    beta1: float = entry(0.9, "decay rate of the first moment", ge=0, lt=1)
    beta2: float = entry(0.999, "decay rate of the second moment", ge=0, lt=1)
    epsilon: float = entry(1e-8, "added to the square root of the second moment", gt=0, le=1)
    weight_decay: float = entry(
        0.1, "decoupled weight decay; not applied to biases and LayerNorms", ge=0, le=10
    )
    decay_layer_norms: bool = entry(
        False, "also apply weight decay to LayerNorm weights, like the reference"
    )
    clip_norm: float = entry(0.1, "maximum global gradient norm; 0: no clipping", ge=0)
    trust_without_decay: bool = entry(
        False, "NVLAMB: also apply the trust ratio to tensors without weight decay"
    )
    backend: Literal["auto", "torch", "apex"] = entry(
        "auto",
        "kernels of nvlamb and adamw: torch, apex (NVIDIA's), or auto: apex if it is "
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

    name: Literal["polynomial", "linear", "cosine", "cosine_restarts", "constant"] = entry(
        "polynomial", "decay after warm-up"
    )
    warmup_steps: int = entry(0, "steps of linear warm-up", ge=0)
    warmup_ratio: float | None = entry(
        None, "warm-up as a share of all steps; overrides warmup_steps", ge=0, le=1
    )
    power: float = entry(1.0, "exponent of the polynomial decay", gt=0, le=10)
    end_learning_rate: float = entry(0.0, "learning rate at the last step", ge=0)
    cycles: int = entry(1, "number of cycles of cosine_restarts", ge=1)

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

    max_steps: int = entry(1000, "optimizer steps in total", ge=1, le=10**9)
    epochs: float | None = entry(
        None, "number of passes over the training data; overrides max_steps", gt=0, le=1e6
    )
    global_batch: int = entry(
        64,
        "sequences per optimizer step, over all devices and accumulation steps",
        ge=1,
        le=10**6,
    )
    micro_batch: int | Literal["auto"] = entry(
        8,
        "sequences per device and forward pass, which determines gradient "
        "accumulation; auto: as many as fit in memory",
    )
    precision: Precision = entry(
        "fp32", "precision of forward and backward: fp32, tf32, bf16 or fp16"
    )
    label_smoothing: float = entry(0.0, "label smoothing factor", ge=0, lt=1)
    freeze_embeddings: bool = entry(False, "freeze token and position embeddings")
    freeze_encoder: bool = entry(False, "freeze the encoder")
    seed: int = entry(42, "seed for weights, dropout, data order and noise", ge=0, lt=2**63)
    log_every: int = entry(10, "steps between log lines in metrics.jsonl", ge=1)
    loggers: tuple[Logger, ...] = entry(
        ("tensorboard",),
        "trackers to log to besides metrics.jsonl: tensorboard, wandb, mlflow, trackio",
    )
    checkpoint_every: int | Literal["epoch"] = entry(
        500, "steps between checkpoints; epoch: one epoch, in whole steps"
    )
    keep_last: int = entry(
        2,
        "newest checkpoints to keep; at least 2 are kept, because only a later step "
        "shows that the newest one is good",
        ge=1,
    )
    keep_best: int = entry(0, "best checkpoints (by select_by) to keep in addition", ge=0)
    validate_every: int | Literal["epoch"] | None = entry(
        None, "steps between validations; epoch: one epoch, in whole steps; null: none"
    )
    max_bad_steps: int = entry(
        10, "stop after this many consecutive steps with a non-finite loss", ge=1
    )
    patience: int | None = entry(
        None, "stop after this many validations without improvement; null: never", ge=1
    )
    select_by: Literal["loss", "rouge1", "rouge2", "rougeLsum"] = entry(
        "loss", "metric that selects the best checkpoint"
    )
    time_limit: float | None = entry(
        None, "write a checkpoint and stop after this many minutes; null: never", gt=0, le=1e6
    )
    activation_checkpointing: bool = entry(
        False, "recompute activations in backward: less memory, but slower"
    )
    half_precision_allreduce: bool = entry(
        False, "all-reduce gradients in bf16 (in fp16 if the precision is fp16)"
    )
    sharding: Literal["none", "fsdp"] = entry(
        "none", "fsdp: shard weights, gradients and optimizer state over ranks (FSDP2)"
    )
    parameters: Literal["fp32", "bf16"] = entry(
        "fp32", "data type of the weights; bf16: nvlamb only, with fp32 master weights"
    )
    compile: bool | Literal["auto"] = entry(
        "auto",
        "compile the model with torch.compile: true, false, or auto: on a GPU, if a "
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
