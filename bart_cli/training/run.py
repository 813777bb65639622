"""Start, resume and finish a run in its folder; shared by pre-training and fine-tuning.

Files in RUN: config.yaml, metrics.jsonl, tensorboard/, trackers.json, samples.json, checkpoints/,
best/ (the model of the best validation), model/ (the final model), curves.png.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bart_cli.config.generation import GenerationConfig
from bart_cli.config.model import ModelConfig
from bart_cli.config.training import TrainingConfig
from bart_cli.data.order import Share
from bart_cli.data.pretrain_loader import PretrainLoader
from bart_cli.data.summarization_loader import SummarizationLoader
from bart_cli.errors import BartError
from bart_cli.figures import draw_curves
from bart_cli.files import atomic_folder, write_text
from bart_cli.model.bart import Bart
from bart_cli.model.formats import load_model, require_dictionary, require_room, write_weights
from bart_cli.progress import Reporter
from bart_cli.runtime.memory import is_out_of_memory
from bart_cli.runtime.precision import EMULATED, is_emulated
from bart_cli.runtime.signals import StopRequest
from bart_cli.runtime.world import World
from bart_cli.tokenizer import Tokenizer
from bart_cli.training import resume
from bart_cli.training.checkpoint import Progress, load_state, whole_weights, writing
from bart_cli.training.dry_run import estimate
from bart_cli.training.fit import Config, Room, fit
from bart_cli.training.loop import Job, Validate, train
from bart_cli.training.metrics import first_and_last_loss, read_metrics, training_curves
from bart_cli.training.optimizers import learning_rate
from bart_cli.training.resume import Start, TrainingRun
from bart_cli.training.setup import equip, place
from bart_cli.training.trackers import Trackers
from bart_cli.training.validation import NotFinite


@dataclass(frozen=True)
class RunResult:
    """Result of a run."""

    run: Path
    outcome: str  # "done" or the reason for stopping
    step: int
    first_loss: float | None = None
    last_loss: float | None = None
    best_step: int | None = None
    model: Path | None = None  # folder of the final model; None if the run is not finished
    is_main: bool = True
    signal: int | None = None  # received by this process, even too late to stop the run
    estimate: dict[str, Any] | None = None  # of a dry run, see `dry_run.estimate`


def start_model(
    config: TrainingRun,
    tokenizer: Tokenizer,
    world: World,
    reporter: Reporter,
    *,
    checkpoint: Path | None = None,
    grow: bool = False,
) -> Bart:
    """Make the initial model: from a checkpoint, from `init_from`, or with random weights.

    If `grow`, add embeddings that `init_from` lacks, such as the one of <mask>.
    """
    training = config.training
    if checkpoint is not None:
        model = load_model(checkpoint / "model", dropouts=config.model).model
    elif config.init_from is not None:
        loaded = load_model(config.init_from, dropouts=config.model)
        model = loaded.model
        require_room(tokenizer, model.config)
        require_dictionary(tokenizer, loaded.folder)
        missing = tokenizer.tokens_from(model.config.vocab_size)
        if grow and missing:
            names = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
            reporter.info(
                f"{config.init_from} has {model.config.vocab_size:,} embeddings, but the "
                "tokenizer has "
                f"{tokenizer.vocab_size:,} entries: the table grows by {len(missing)} ({names})"
            )
            torch.manual_seed(training.seed)
            model.grow(tokenizer.vocab_size)
    else:
        if config.model.vocab_size != tokenizer.vocab_size:
            reporter.info(f"model.vocab_size={tokenizer.vocab_size}, taken from the tokenizer")
        torch.manual_seed(training.seed)
        model = Bart(fit_vocabulary(config.model, tokenizer))
    return place(model, training, world)


def fit_vocabulary(config: ModelConfig, tokenizer: Tokenizer) -> ModelConfig:
    """Copy a configuration with the vocabulary size and special ids of a tokenizer."""
    eos = tokenizer.eos_id
    return ModelConfig.model_validate(
        config.model_dump()
        | {
            "vocab_size": tokenizer.vocab_size,
            "bos_token_id": eos if tokenizer.bos_id is None else tokenizer.bos_id,
            "pad_token_id": tokenizer.pad_id,
            "eos_token_id": eos,
            # mBART's decoder starts with the last token of the target, here as in training.
            "decoder_start_token_id": tokenizer.target_frame[1][-1]
            if config.pre_layer_norm
            else eos,
        }
    )


def run_training(
    config: Config,
    run: Path,
    world: World,
    model: Bart,
    tokenizer: Tokenizer,
    start: Start,
    data: Mapping[str, str],
    *,
    longest: tuple[int, int],
    make_loader: Callable[[Share], PretrainLoader | SummarizationLoader],
    make_validation: Callable[[Config], Validate | None],
    generation: GenerationConfig | None = None,
    dry_run: bool,
    reporter: Reporter,
) -> RunResult:
    """Train in the run folder and write the final model, or only estimate the run.

    Args:
        model: has the weights of `start.checkpoint`, if that is not None.
        data: digests of the data.
        longest: tokens of the longest source and of the longest target.
        make_validation: returns `Job.validate`, given the settings with a numeric micro-batch.
        generation: decoding settings to save with the models.
        dry_run: write nothing; return an estimate.
    """
    resumed = start.checkpoint is not None
    config, room = fit(config, run, model, longest, world, reporter, resumed=resumed)
    validate, training = make_validation(config), config.training
    if is_emulated(training.precision, world.device):
        reporter.warn(EMULATED)
    optimizer, scaler = equip(model, training, config.optimizer, world, reporter.warn)
    progress = Progress()
    if start.checkpoint is not None:
        progress = load_state(start.checkpoint, model, optimizer, scaler)
    share = Share(
        global_batch=training.global_batch,
        micro_batch=training.micro_batch_size,
        rank=world.rank,
        world_size=world.size,
        start_sample=progress.samples,
    )
    loader = make_loader(share)
    job = Job(
        run=run,
        world=world,
        model=model,
        tokenizer=tokenizer,
        optimizer=optimizer,
        scaler=scaler,
        batches=iter(loader),
        training=training,
        optimizer_config=config.optimizer,
        schedule=lambda step: learning_rate(
            step, training.max_steps, config.optimizer.learning_rate, config.schedule
        ),
        progress=progress,
        generation=generation,
        samples_per_epoch=loader.samples_per_epoch,
        validate=validate,
    )
    try:
        if not dry_run:
            return _train(config, job, start, data, room, reporter)
        with _explained(training, room, world):
            found = estimate(config, job, room, loader.tokens_per_epoch(), reporter)
    finally:  # ends the processes of the loader
        job.batches.close()  # type: ignore[attr-defined]  # it is a generator
    return RunResult(run, "dry run", progress.step, is_main=world.is_main, estimate=found)


def _train(
    config: TrainingRun,
    job: Job,
    start: Start,
    data: Mapping[str, str],
    room: Room,
    reporter: Reporter,
) -> RunResult:
    """Claim the run folder, run the loop, and write the results."""
    training, run, world, model = config.training, job.run, job.world, job.model
    written = config.model_copy(update={"model": model.config})
    trackers = world.on_rank_0(
        lambda: Trackers(
            run,
            [name for name in training.loggers if name != "tensorboard"],
            written.model_dump(mode="json"),
            read_metrics(run),
            job.progress.step,
            reporter,
            fresh=start.branch,
        )
    )
    if world.is_main:  # nothing else is written to the folder before this line
        resume.begin(run, written, data, start, job.progress, reporter)
    progress = job.progress = world.broadcast(job.progress)

    def save(folder: Path, weights: dict[str, Tensor]) -> None:
        with writing(folder, run), atomic_folder(folder) as temporary:
            write_weights(temporary, model.config, weights, job.tokenizer, job.generation)
            write_text(temporary / resume.STEP, json.dumps({"step": progress.step}) + "\n")

    job.save_best = partial(save, run / "best")
    job.trackers = trackers
    outcome = "failed"
    with StopRequest(training.time_limit) as stop:
        try:
            with _explained(training, room, world):
                outcome = train(job, stop, reporter)
        except NotFinite as error:
            since = progress.step - progress.bad_in_row  # the update of this step broke the weights
            good = resume.record_failure(run, since, error.message) if world.is_main else None
            effect = "the run starts again" if good is None else f"the run resumes from {good}"
            error.hint = (
                f"Pass a lower --learning-rate with the same --out: {effect}. If the precision is "
                "fp16, you can also pass --precision bf16."
            )
            raise
        except KeyboardInterrupt:
            raise BartError(
                "interrupted twice: the steps since the last checkpoint are lost", exit_code=130
            ) from None
        finally:
            if trackers is not None:
                trackers.close(outcome)
        finished = outcome == "done" or outcome.startswith("stopped: no improvement")
        weights = whole_weights(model) if finished else {}

        def write_results() -> None:
            if finished:
                save(run / "model", weights)
                resume.finish(run, outcome)
            if curves := training_curves(read_metrics(run)):
                draw_curves(run / "curves.png", curves)

        world.on_rank_0(write_results)
    return replace(
        finished_result(run, world),
        outcome=outcome,
        step=progress.step,
        best_step=progress.best_step if progress.best_score is not None else None,
        model=run / "model" if finished else None,
        signal=stop.signal,
    )


@contextmanager
def _explained(training: TrainingConfig, room: Room, world: World) -> Iterator[None]:
    """Raise a BartError with a hint for the errors of training steps that have a remedy."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            size = training.micro_batch_size
            raise BartError(
                f"out of memory on {world.device} with micro-batch {size}; checkpoints are kept",
                hint=room.hint(size, failed=True),
            ) from None
        if "bus error" in str(error).lower() or "shared memory" in str(error):
            raise BartError(
                "the data workers ran out of shared memory (/dev/shm)",
                hint="Start the container with --ipc=host or --shm-size=8g, or pass "
                "--set data.workers=0.",
            ) from None
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            first = str(error).strip().partition("\n")[0]
            raise BartError(
                f"torch.compile failed: {first}", hint="Pass --set training.compile=false."
            ) from None
        if "DataLoader worker" not in str(error):  # torch raises this one from a signal handler
            raise
        raise BartError(
            f"a data worker died: {error}",
            hint="If memory was short, lower data.workers. Rerun the command to resume.",
        ) from None


def finished_result(run: Path, world: World) -> RunResult:
    """Return the result of a run that is already finished."""
    rows = read_metrics(run)
    first_loss, last_loss = first_and_last_loss(rows)
    return RunResult(
        run=run,
        outcome=resume.read_outcome(run) or "done",
        step=rows[-1]["step"] if rows else 0,
        first_loss=first_loss,
        last_loss=last_loss,
        model=run / "model",
        is_main=world.is_main,
    )
