"""Write, verify and load checkpoints.

A checkpoint is a folder `RUN/checkpoints/step-{step:08d}/` with `model/` (Hugging Face's layout,
see model.formats), `optimizer.safetensors` (state tensors by parameter name) and `state.json`
(progress, loss scaler, SHA-256 of the other files). Folders are written atomically.

The weights of the newest checkpoint are known to be good only after a later step with a finite
loss.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bart_cli.config.generation import GenerationConfig
from bart_cli.config.model import ModelConfig
from bart_cli.config.training import TrainingConfig
from bart_cli.errors import BartError
from bart_cli.files import atomic_folder, sha256
from bart_cli.model.bart import Bart
from bart_cli.model.formats import write_weights
from bart_cli.tokenizer import Tokenizer
from bart_cli.training.parallel import full_tensor, shard_like

SEPARATOR = "|"  # between parameter and state name; never part of either


@dataclass
class Progress:
    """Progress of a run. Data order, noise and dropout are functions of these numbers and the seed.

    Higher scores are better; a loss is negated.
    """

    step: int = 0  # optimizer steps, including skipped ones
    samples: int = 0  # sequences consumed; the loader's entire state
    loss_sum: float = 0.0  # of the losses since the last row of the log
    loss_steps: int = 0  # their number
    skipped: int = 0  # steps with a non-finite loss or gradient
    bad_in_row: int = 0  # how many of these are consecutive and include the last step
    best_score: float | None = None  # of the best validation so far
    best_step: int = 0
    stale: int = 0  # validations since the best one
    score: float | None = None  # of this step; None if it was not validated
    best_scores: list[float] = field(default_factory=list)  # the best `keep_best` so far
    lost: bool = False  # the last step was not finite, and it was no overflow of fp16 gradients
    owes_validation: bool = False  # a stop request interrupted it; the resumed run starts with it


@dataclass(frozen=True)
class Snapshot:
    """The content of a checkpoint, copied to host memory."""

    step: int
    config: ModelConfig
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]


def take_snapshot(
    model: Bart, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, progress: Progress
) -> Snapshot:
    """Copy the state of a run to host memory. A collective call if the model is sharded."""
    return Snapshot(
        step=progress.step,
        config=model.config,
        weights=whole_weights(model),
        optimizer={
            f"{name}{SEPARATOR}{key}": _copy(value)
            for name, parameter in _named(model, optimizer)
            for key, value in optimizer.state.get(parameter, {}).items()
        },
        state={
            "progress": asdict(progress),
            "scaler": scaler.state_dict(),
            # apex counts steps per group.
            "group_steps": [int(g["step"]) for g in optimizer.param_groups if "step" in g],
        },
    )


def whole_weights(model: Bart) -> dict[str, Tensor]:
    """Copy the weights to host memory. A collective call if the model is sharded."""
    return {name: _copy(tensor) for name, tensor in model.state_dict().items()}


def write_checkpoint(
    run: Path,
    snapshot: Snapshot,
    tokenizer: Tokenizer,
    generation: GenerationConfig | None,
    training: TrainingConfig,
) -> Path:
    """Write a checkpoint, then delete all but the newest `keep_last` and the best `keep_best`."""
    folder = run / "checkpoints" / f"step-{snapshot.step:08d}"
    with writing(folder, run), atomic_folder(folder) as temporary:
        model = temporary / "model"
        write_weights(model, snapshot.config, snapshot.weights, tokenizer, generation)
        save_file(snapshot.optimizer, temporary / "optimizer.safetensors")
        files = sorted(path for path in temporary.rglob("*") if path.is_file())
        digests = {path.relative_to(temporary).as_posix(): sha256(path) for path in files}
        state = snapshot.state | {"sha256": digests}
        (temporary / "state.json").write_text(json.dumps(state, indent=2) + "\n")
    found = list_checkpoints(run)
    # Keep at least two: only the second newest is known to be good.
    kept = found[-max(2, training.keep_last) :]
    if training.keep_best:
        scored = sorted((score, path) for path in found if (score := _score(path)) is not None)
        kept += [path for _, path in scored[-training.keep_best :]]
    for old in found:
        if old not in kept:
            # Rename it first, so that a kill during deletion does not leave a damaged checkpoint.
            shutil.rmtree(old.rename(old.with_name(f".{old.name}.{os.getpid()}.tmp")))
    return folder


def _score(folder: Path) -> float | None:
    """Return the validation score of a checkpoint, or None if its step was not validated."""
    try:
        score = json.loads((folder / "state.json").read_text())["progress"].get("score")
    except (OSError, ValueError, KeyError, AttributeError):
        return None
    return score if isinstance(score, float) else None


@contextmanager
def writing(folder: Path, run: Path) -> Iterator[None]:
    """Turn errors of writing `folder` into a BartError that names the checkpoint to resume from."""
    try:
        yield
    except (OSError, safetensors.SafetensorError) as error:
        older = list_checkpoints(run)
        raise BartError(
            f"cannot write {folder}: {error}",
            hint=f"Free disk space; the run resumes from {older[-1]}."
            if older
            else "Free disk space.",
        ) from None


@contextmanager
def checkpoint_writer(
    run: Path, tokenizer: Tokenizer, generation: GenerationConfig | None, training: TrainingConfig
) -> Iterator[Callable[[Snapshot], None]]:
    """Yield a function that writes a checkpoint in a background thread while training continues.

    Its next call and the end of the block wait for that checkpoint.
    """
    pending: list[Future[Path]] = []

    def wait() -> None:
        if pending:
            pending.pop().result()

    def write(snapshot: Snapshot) -> None:
        wait()
        settings = tokenizer, generation, training
        pending.append(pool.submit(write_checkpoint, run, snapshot, *settings))

    with ThreadPoolExecutor(1, "checkpoint") as pool:
        try:
            yield write
        except BaseException:
            with suppress(BartError):  # it would hide the error that ended the run
                wait()
            raise
        wait()


def list_checkpoints(run: Path) -> list[Path]:
    """List the complete checkpoints of a run, oldest first."""
    return sorted(
        path
        for path in (run / "checkpoints").glob("step-*")
        if (path / "state.json").is_file() and (path / "model" / "config.json").is_file()
    )


def step_of(name: str) -> int:
    """Parse the step from the name of a checkpoint folder."""
    return int(name.removeprefix("step-"))


def verify(folder: Path) -> None:
    """Check a checkpoint against its SHA-256 digests."""
    try:
        for name, digest in json.loads((folder / "state.json").read_text())["sha256"].items():
            if sha256(folder / name) != digest:
                raise BartError(f"{folder / name} has changed since it was written")
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise BartError(f"{folder}: {error}") from None


@torch.no_grad()
def load_state(
    folder: Path, model: Bart, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
) -> Progress:
    """Load the optimizer and the scaler; `model` must have the weights of this checkpoint."""
    try:
        state: dict[str, Any] = json.loads((folder / "state.json").read_text())
        progress = Progress(**state["progress"])
        tensors = load_file(folder / "optimizer.safetensors")
        _restore_optimizer(model, optimizer, tensors, state.get("group_steps", []))
        if state["scaler"]:  # empty unless the precision was fp16
            scaler.load_state_dict(state["scaler"])
    except (ValueError, KeyError, TypeError, RuntimeError, OSError) as error:
        raise BartError(f"{folder}: {error}") from None
    except safetensors.SafetensorError as error:
        raise BartError(f"{folder}/optimizer.safetensors: {error}") from None
    return progress


def _named(model: Bart, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Any]]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            yield names[parameter], parameter


def _copy(value: Any) -> Tensor:
    tensor = full_tensor(value).detach()
    return tensor.to("cpu", copy=True, memory_format=torch.contiguous_format)


def _restore_optimizer(
    model: Bart, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], steps: list[int]
) -> None:
    """Restore state tensors unchanged: `load_state_dict` would cast them to the parameter's dtype.

    apex keeps the `steps` in its parameter groups.
    """
    parameters = dict(_named(model, optimizer))
    on_device = {
        parameter
        for group in optimizer.param_groups
        if group.get("fused") or group.get("capturable")
        for parameter in group["params"]
    }
    for key, tensor in tensors.items():
        name, _, part = key.partition(SEPARATOR)
        parameter = parameters[name]
        if part != "step" or parameter in on_device:
            tensor = tensor.to(parameter.device)
        optimizer.state[parameter][part] = shard_like(parameter, tensor)
    for group, step in zip(optimizer.param_groups, steps, strict=False):
        on_gpu = isinstance(group.get("step"), Tensor)
        group["step"] = group["step"].fill_(step) if on_gpu else step
