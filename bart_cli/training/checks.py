"""Check the settings of a run before it starts, all at once, and resolve its length to steps."""

import math
import os
import shutil
import sysconfig
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import torch

from bart_cli.config.model import LAYERDROPS
from bart_cli.errors import UsageError
from bart_cli.extras import EXTRAS, require
from bart_cli.progress import Reporter
from bart_cli.runtime.precision import is_emulated, problem_of
from bart_cli.runtime.world import World
from bart_cli.training.fit import Config
from bart_cli.training.optimizers import backend_problem
from bart_cli.training.resume import TrainingRun


def check_run(config: TrainingRun, world: World, problems: list[str]) -> None:
    """Check the settings of a run; report them with the problems that the caller has found."""
    training = config.training
    if training.global_batch % world.size:
        problems.append(
            f"training.global_batch={training.global_batch} is not divisible by the number of "
            f"ranks ({world.size})"
        )
    if precision := problem_of(training.precision, world.device):
        problems.append(precision)
    if config.schedule.warmup_steps > training.max_steps:
        epochs = "" if training.epochs is None else f", the length of {training.epochs:g} epochs"
        problems.append(
            f"schedule.warmup_steps={config.schedule.warmup_steps} exceeds "
            f"training.max_steps={training.max_steps}{epochs}"
        )
    if backend := backend_problem(config.optimizer, training.parameters):
        problems.append(backend)
    if training.parameters == "bf16" and config.optimizer.name != "nvlamb":
        problems.append(
            f"training.parameters=bf16 requires optimizer.name=nvlamb, which keeps fp32 master "
            f"weights; {config.optimizer.name} does not"
        )
    if training.compile is True and (compiler := compiler_problem(world.device)):
        problems.append(compiler)
    if training.compile is True and is_emulated(training.precision, world.device):
        problems.append(
            "training.compile=true cannot be combined with training.precision=bf16 on this CPU, "
            "which has no bf16 instructions; use fp32"
        )
    for name in LAYERDROPS:
        if training.compile is True and getattr(config.model, name):
            problems.append(f"model.{name} cannot be combined with training.compile=true")
    unsupported = {
        "optimizer.name=adafactor": config.optimizer.name == "adafactor",
        "optimizer.backend=apex": config.optimizer.backend == "apex",
        "training.precision=fp16": training.precision == "fp16",
        f"training.select_by={training.select_by}": training.select_by != "loss",
        **{f"model.{name}": getattr(config.model, name) > 0 for name in LAYERDROPS},
        "data.max_tokens": getattr(config.data, "max_tokens", None) is not None,
    }
    for name, is_set in unsupported.items():
        if is_set and training.sharding == "fsdp":
            problems.append(f"training.sharding=fsdp cannot be combined with {name}")
    if problems:
        raise UsageError("cannot start:\n  " + "\n  ".join(problems))
    for name in training.loggers:
        if name in EXTRAS:
            otherwise = f"remove {name} from training.loggers"
            require(f"training.loggers={name}", name, otherwise=otherwise)


def compiler_problem(device: torch.device) -> str | None:
    """Return the reason why torch.compile cannot work on this machine, or None.

    It compiles C++ on a CPU and C (for Triton) on a GPU.
    """
    names = ("CXX", "g++") if device.type == "cpu" else ("CC", "gcc", "clang")
    candidates = [os.environ.get(names[0], ""), *names[1:]]
    missing = []
    if not any(shutil.which(command.split()[0]) for command in candidates if command.strip()):
        missing.append(f"a compiler ({' or '.join(names[1:])}; {names[0]} names another)")
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
        missing.append("Python's headers (Python.h)")
    if not missing:
        return None
    return f"training.compile needs {' and '.join(missing)}: install them, or set it to false"


def in_steps(config: Config, samples: Callable[[], int], reporter: Reporter) -> Config:
    """Resolve `epochs`, `warmup_ratio` and intervals of one epoch to steps.

    The loader fills the last batch of an epoch with samples of the next epoch. Therefore only the
    total is rounded up, not every epoch. `samples`, their number per epoch, is called if needed.
    """
    training, schedule = config.training, config.schedule
    changes: dict[str, int] = {}
    every = {name: getattr(training, name) for name in ("checkpoint_every", "validate_every")}
    if training.epochs is not None or "epoch" in every.values():
        epoch = samples()
        changes = {n: _steps(1, epoch, training.global_batch) for n in every if every[n] == "epoch"}
        if training.epochs is not None:
            steps = changes["max_steps"] = _steps(training.epochs, epoch, training.global_batch)
            reporter.info(
                f"{training.epochs:g} epochs of {epoch:,} samples: {steps:,} steps of "
                f"{training.global_batch:,}"
            )
        training = training.model_copy(update=changes)
    if schedule.warmup_ratio is not None:
        warmup = round(schedule.warmup_ratio * training.max_steps)
        schedule = schedule.model_copy(update={"warmup_steps": warmup})
    return config.model_copy(update={"training": training, "schedule": schedule})


def _steps(epochs: float, samples: int, global_batch: int) -> int:
    return math.ceil(Fraction(str(epochs)) * samples / global_batch)  # 0.07 is 7/100
