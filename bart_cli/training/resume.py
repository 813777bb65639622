"""Decide from a run folder how a run starts: anew, from a checkpoint, or not at all.

In: the configuration, digests of the data, and `--resume`. Out: `Start`. Nothing is written before
`begin`, which claims the folder.

- RUN/config.yaml, RUN/data.json: the settings and the digests of the data, which bind the folder.
- RUN/failure.json: the loss was not finite; the next start may change settings such as the learning
  rate.
- RUN/rollback.json: the checkpoint that `--resume PATH` rolled back to. Rerunning the same command
  resumes from the newest checkpoint instead of rolling back again.
- RUN/abandoned-N: steps that were undone by a rollback.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path

from bart_cli.config.generation import Layer
from bart_cli.config.model import DROPOUTS, ModelConfig
from bart_cli.config.presets import flatten, load_config, read_yaml
from bart_cli.config.run import FinetuneConfig, PretrainConfig, save_config
from bart_cli.errors import START_ANEW, BartError, UsageError
from bart_cli.files import (
    Record,
    atomic_folder,
    bind,
    read_object,
    remove_leftovers,
    strict_json,
    write_text,
)
from bart_cli.progress import Reporter
from bart_cli.runtime.world import restarted
from bart_cli.training.checkpoint import Progress, list_checkpoints, step_of, verify
from bart_cli.training.metrics import read_metrics

TrainingRun = PretrainConfig | FinetuneConfig
DONE, DATA, FAILURE, ROLLBACK = "done.json", "data.json", "failure.json", "rollback.json"
# Reads a JSON object that a run has written.
read_record = partial(
    read_object, hint="Delete that file: the run then resumes from its newest checkpoint."
)
STEP = "step.json"  # in RUN/best and RUN/model: the step of the weights
# Settings that may change when a run resumes: they do not affect its results.
FREE = frozenset(
    """
    description training.time_limit training.keep_last training.keep_best training.max_bad_steps
    training.log_every training.loggers training.checkpoint_every training.micro_batch data.workers
    training.epochs schedule.warmup_ratio
    """.split()  # epochs and warmup_ratio: the numbers of steps that result are compared
)
# Locations of the data; its content is compared by digests (data.json).
LOCATIONS = frozenset("data.path data.validation_path data.tokenizer".split())
# Settings that may change after a loss that was not finite.
REMEDIES = frozenset(
    """
    optimizer.learning_rate optimizer.clip_norm training.precision schedule.name
    schedule.warmup_steps schedule.power schedule.end_learning_rate
    """.split()
)
# Settings of the model that are taken from the tokenizer.
VOCABULARY = "vocab_size bos_token_id pad_token_id eos_token_id decoder_start_token_id".split()


@dataclass(frozen=True)
class Start:
    """How a run starts."""

    checkpoint: Path | None = None  # to resume from; None: start at step 0
    finished: bool = False  # already
    rollback: bool = False  # `checkpoint` was given by `--resume`
    branch: bool = False  # the steps after `checkpoint` are to be set aside


def find_start(
    run: Path, config: TrainingRun, data: Mapping[str, str], resume: str, reporter: Reporter
) -> Start:
    """Decide how the run starts. `resume` is auto, none, or a checkpoint folder."""
    changed = changes(run, config, data)
    if resume == "none" and restarted():
        resume = "auto"  # by a launcher that repeats the command: the run is its own
    if changed is None:
        return _choose(run, resume, reporter)
    outcome = read_outcome(run)
    longer = "training.max_steps" in changed and outcome == "done"
    finished = outcome is not None and not longer
    named = resume not in ("auto", "none")
    start = Start() if finished and not named else _choose(run, resume, reporter)
    if finished and not start.rollback:
        reporter.info(f"{run} is already finished: nothing to do")
        return Start(finished=True)
    if resume == "none" and list_checkpoints(run):
        raise UsageError(
            f"{run} holds an unfinished run", hint="Drop --resume none, or choose another --out."
        )
    if changed:
        reporter.info(f"changed since the last start: {'; '.join(changed.values())}")
    return replace(start, branch=start.rollback or any(key in REMEDIES for key in changed))


def changes(run: Path, config: TrainingRun, data: Mapping[str, str]) -> dict[str, str] | None:
    """Return the settings that changed since the last start, by key; None if there is no run."""
    path = run / "config.yaml"
    if not path.is_file():
        return None
    if read_yaml(path).get("task") == "evaluate":
        raise UsageError(f"{run} holds an evaluation", hint=START_ANEW)
    if not (read_metrics(run) or list_checkpoints(run)):
        return None
    before = load_config(type(config), config_file=path)
    bound = read_record(run / DATA)
    allowed = set(REMEDIES) if (run / FAILURE).is_file() else set()
    if config.training.max_steps > before.training.max_steps:
        allowed.add("training.max_steps")
        if config.schedule.warmup_ratio is not None:
            allowed.add("schedule.warmup_steps")
    ignored = (LOCATIONS if bound else frozenset()) | FREE | _implied(config)

    def record(one: TrainingRun, inputs: Mapping[str, str]) -> Record:
        settings = dict(flatten(one.model_dump(mode="json", exclude={"generation_sources"})))
        return Record({k: v for k, v in settings.items() if k not in ignored}, inputs)

    now = record(config, data if bound else {})
    return bind(run, "a run", record(before, bound), now, may_change=allowed)


def _choose(run: Path, resume: str, reporter: Reporter) -> Start:
    """Choose the checkpoint to resume from, and verify it."""
    candidates = list_checkpoints(run)
    if resume == "none":
        return Start()
    if resume != "auto":
        named = Path(resume).resolve()
        if read_record(run / ROLLBACK).get("checkpoint") != str(named) or not candidates:
            if not (named / "state.json").is_file():
                raise UsageError(f"--resume {resume}: no checkpoint there")
            verify(named)
            return Start(named, rollback=True, branch=True)
        reporter.info(
            f"{run} was rolled back to {named} before; to roll back again, delete {run / ROLLBACK}"
        )
    for folder in reversed(candidates):
        try:
            verify(folder)
        except BartError as error:
            reporter.warn(f"skipping damaged checkpoint {folder}: {error.message}")
            continue
        reporter.info(f"resuming from {folder}")
        return Start(folder)
    if candidates:
        raise BartError(
            f"every checkpoint in {run} is damaged", hint="Choose another --out to start again."
        )
    return Start()


def recorded_generation(run: Path) -> list[Layer] | None:
    """Return the decoding settings that a run took from its `init_from` model.

    With these, a run resumes even if that model no longer exists. None: there is no run with a
    checkpoint.
    """
    if not (run / "config.yaml").is_file() or not list_checkpoints(run):
        return None
    settings = read_yaml(run / "config.yaml")
    values = settings.get("generation", {})
    return [
        (source, {name: values[name]})
        for name, source in settings.get("generation_sources", {}).items()
        if source not in ("default", "options") and not source.startswith("preset ")
    ]


def _implied(config: TrainingRun) -> set[str]:
    """List the settings of the model that follow from the tokenizer, weights or distillation."""
    decided = set(ModelConfig.model_fields) - set(DROPOUTS)
    if config.init_from is None:
        decided = set(VOCABULARY)
        for side in ("encoder", "decoder"):
            if getattr(config, f"keep_{side}_layers", None) is not None:
                decided.add(f"{side}_layers")
    return {f"model.{name}" for name in decided}


def begin(
    run: Path,
    config: TrainingRun,
    data: Mapping[str, str],
    start: Start,
    progress: Progress,
    reporter: Reporter,
) -> None:
    """Claim the folder for this run, on rank 0. Reset the best score if that model is gone."""
    run.mkdir(parents=True, exist_ok=True)
    remove_leftovers(run, below=False)
    remove_leftovers(run / "checkpoints")
    if start.branch:
        _set_aside(run, start.checkpoint, reporter)
        if progress.best_score is not None and not (run / "best").is_dir():
            source = run / "checkpoints" / f"step-{progress.best_step:08d}" / "model"
            if source.is_dir():
                with atomic_folder(run / "best") as temporary:
                    shutil.copytree(source, temporary, dirs_exist_ok=True)
                    write_text(temporary / STEP, strict_json({"step": progress.best_step}) + "\n")
            else:
                progress.best_score, progress.best_step, progress.stale = None, 0, 0
    if start.rollback:
        write_text(run / ROLLBACK, strict_json({"checkpoint": str(start.checkpoint)}) + "\n")
    (run / DONE).unlink(missing_ok=True)
    shutil.rmtree(run / "model", ignore_errors=True)  # left by a run that is now extended
    save_config(config, run / "config.yaml")
    write_text(run / DATA, strict_json(data, indent=2) + "\n")
    if start.branch:
        (run / FAILURE).unlink(missing_ok=True)


def finish(run: Path, outcome: str) -> None:
    """Mark the run as finished."""
    write_text(run / DONE, strict_json({"outcome": outcome}) + "\n")
    (run / FAILURE).unlink(missing_ok=True)


def record_failure(run: Path, step: int, reason: str) -> Path | None:
    """Set aside the checkpoints from `step` on, whose weights are bad; return the last good one."""
    write_text(run / FAILURE, strict_json({"step": step, "reason": reason}) + "\n")
    found = list_checkpoints(run)
    for folder in found:
        if step_of(folder.name) >= step:
            aside = folder.with_name(f"not-finite-{folder.name}")
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)
    return next((f for f in reversed(found) if step_of(f.name) < step), None)


def _set_aside(run: Path, checkpoint: Path | None, reporter: Reporter) -> None:
    """Move everything written after a checkpoint to RUN/abandoned-N; all, if it is no own one."""
    own = checkpoint and checkpoint.resolve().parent == (run / "checkpoints").resolve()
    step = step_of(checkpoint.name) if checkpoint and own else -1
    rows = [row for row in read_metrics(run) if row["step"] > step]
    later = [path for path in list_checkpoints(run) if step_of(path.name) > step]
    best = read_record(run / "best" / STEP).get("step", 0)
    others = [run / "best"] if best > step and (run / "best").is_dir() else []
    others += [path for path in (run / DONE, run / "model") if path.exists()]
    if not rows and not later and not others:
        return
    aside = next(p for n in count(1) if not (p := run / f"abandoned-{n}").exists())
    (aside / "checkpoints").mkdir(parents=True)
    write_text(aside / "metrics.jsonl", "".join(strict_json(row) + "\n" for row in rows))
    for path in later:
        path.rename(aside / "checkpoints" / path.name)
    for path in others:
        path.rename(aside / path.name)
    reporter.info(f"moved the steps after {max(step, 0):,} to {aside}")


def read_outcome(run: Path) -> str | None:
    """Return the outcome of a finished run; None: it is not finished."""
    record = read_record(run / DONE)
    return str(record.get("outcome", "done")) if record else None
