"""Before a run: everything that can be wrong is told at once, before anything is written."""

from __future__ import annotations

from bart_cli.errors import UsageError
from bart_cli.training.optimizers import backend_problem
from bart_cli.training.precision import problem_of
from bart_cli.training.resume import TrainingRun
from bart_cli.training.world import World


def check_run(config: TrainingRun, world: World, problems: list[str]) -> None:
    """Raise all problems at once, those found here and those that the caller found before.

    Raises:
        UsageError: names every setting that cannot work, before anything is started.
    """
    training = config.training
    if training.global_batch % world.size:
        problems.append(
            f"training.global_batch={training.global_batch} is no multiple of {world.size} ranks"
        )
    precision = problem_of(training.precision, world.device)
    if precision:
        problems.append(precision)
    if config.schedule.warmup_steps > training.max_steps:
        problems.append(
            f"schedule.warmup_steps={config.schedule.warmup_steps} is more than "
            f"training.max_steps={training.max_steps}"
        )
    if backend := backend_problem(config.optimizer, training.parameters):
        problems.append(backend)
    if training.parameters == "bf16" and config.optimizer.name != "nvlamb":
        problems.append(
            f"training.parameters=bf16 needs optimizer.name=nvlamb, which keeps an fp32 copy; "
            f"{config.optimizer.name} does not"
        )
    if training.sharding == "fsdp":
        problems += sharding_problems(config)
    if problems:
        raise UsageError("cannot start:\n  " + "\n  ".join(problems))


def sharding_problems(config: TrainingRun) -> list[str]:
    """What does not go together with weights that are divided among ranks."""
    unfit = {
        "optimizer.name=adafactor": config.optimizer.name == "adafactor",
        "optimizer.backend=apex": config.optimizer.backend == "apex",
        "training.precision=fp16": config.training.precision == "fp16",
        f"training.select_by={config.training.select_by}": config.training.select_by != "loss",
        "data.max_tokens": getattr(config.data, "max_tokens", None) is not None,
    }
    return [f"training.sharding=fsdp does not go with {name}" for name in unfit if unfit[name]]
