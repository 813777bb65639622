"""Before a run: everything that can be wrong is told at once, before anything is written."""

from __future__ import annotations

from pathlib import Path

from bart_cli.config.model import DROPOUTS, ModelConfig
from bart_cli.config.presets import flatten, load_config
from bart_cli.config.run import FinetuneConfig, PretrainConfig
from bart_cli.errors import START_ANEW, UsageError
from bart_cli.progress import Reporter
from bart_cli.training.checkpoint import list_checkpoints
from bart_cli.training.metrics import read_metrics
from bart_cli.training.optimizers import backend_problem
from bart_cli.training.precision import problem_of
from bart_cli.training.world import World

TrainingRun = PretrainConfig | FinetuneConfig
# Settings that may change between a run and its continuation: they do not touch the arithmetic.
FREE = frozenset(
    """
    description training.time_limit training.keep_last training.max_bad_steps training.log_every
    training.checkpoint_every training.micro_batch data.workers
    """.split()
)
# Of a model: what a tokenizer decides.
VOCABULARY = "vocab_size bos_token_id pad_token_id eos_token_id decoder_start_token_id".split()


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


def is_finished(
    run: Path, config: TrainingRun, resume: str, world: World, reporter: Reporter
) -> bool:
    """Whether the folder holds this run, finished; nothing is written.

    Raises:
        UsageError: the folder holds another run, or one that is not to be resumed.
    """
    return world.any(world.leads and _is_finished(run, config, resume, reporter))


def _is_finished(run: Path, config: TrainingRun, resume: str, reporter: Reporter) -> bool:
    path = run / "config.yaml"
    if path.is_file() and (read_metrics(run) or list_checkpoints(run)):
        before = load_config(type(config), config_file=path)
        changed = _changed(before, config)
        if changed:
            raise UsageError(
                f"{run} holds a run with other settings: {'; '.join(changed[:4])}",
                hint=START_ANEW,
            )
        if (run / "done.json").is_file():
            reporter.info(f"{run} is finished already: nothing to do")
            return True
        if resume == "none" and list_checkpoints(run):
            raise UsageError(
                f"{run} holds an unfinished run", hint="drop --resume none, or choose another --out"
            )
    return False


def _changed(before: TrainingRun, now: TrainingRun) -> list[str]:
    one, two = (
        dict(flatten(config.model_dump(mode="json", exclude={"generation_sources"})))
        for config in (before, now)
    )
    ignored = FREE | _of_weights(now)
    return [
        f"{key}={two.get(key)} (was {one.get(key)})"
        for key in one | two
        if one.get(key) != two.get(key) and key not in ignored
    ]


def _of_weights(config: TrainingRun) -> set[str]:
    """Settings of the model that tokenizer, weights or distillation decide, not the user."""
    decided = set(ModelConfig.model_fields) - set(DROPOUTS)
    if config.init_from is None:
        decided = set(VOCABULARY)
        for side in ("encoder", "decoder"):
            if getattr(config, f"keep_{side}_layers", None) is not None:
                decided.add(f"{side}_layers")
    return {f"model.{name}" for name in decided}
