"""Checkpoints: complete or not there at all.

A run keeps `checkpoints/step-{step:08d}/` with `model/` (Hugging Face's layout, see model.formats),
`optimizer.safetensors` (state tensors by parameter name), `state.json` (progress, loss scaler).
A folder gets its name only when everything in it is on the disk.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bart_cli.errors import BartError, UsageError
from bart_cli.files import atomic_folder
from bart_cli.model.bart import Bart
from bart_cli.model.formats import load_model, save_model
from bart_cli.progress import Reporter
from bart_cli.tokenizer import Tokenizer
from bart_cli.training.state import Progress

SEPARATOR = "|"  # between parameter and state name; never part of either


def save_checkpoint(
    run: Path,
    model: Bart,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    progress: Progress,
    tokenizer: Tokenizer,
    *,
    keep: int,
) -> Path:
    """Write the checkpoint of this step, then delete all but the newest `keep`.

    Raises:
        BartError: it could not be written; the older ones are untouched.
    """
    folder = run / "checkpoints" / f"step-{progress.step:08d}"
    try:
        with atomic_folder(folder) as temporary:
            save_model(temporary / "model", model, tokenizer)
            save_file(_optimizer_tensors(model, optimizer), temporary / "optimizer.safetensors")
            state = {"progress": asdict(progress), "scaler": scaler.state_dict()}
            (temporary / "state.json").write_text(json.dumps(state, indent=2) + "\n")
    except (OSError, safetensors.SafetensorError) as error:
        older = list_checkpoints(run)
        raise BartError(
            f"cannot write the checkpoint {folder}: {error}",
            hint=f"make room; the run goes on from {older[-1]}" if older else "make room",
        ) from None
    for old in list_checkpoints(run)[:-keep]:
        shutil.rmtree(old)
    return folder


def list_checkpoints(run: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    return sorted(
        path
        for path in (run / "checkpoints").glob("step-*")
        if (path / "state.json").is_file() and (path / "model" / "config.json").is_file()
    )


def restore(
    resume: str,
    run: Path,
    model: Bart,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    reporter: Reporter,
) -> Progress:
    """Bring model and optimizer to a checkpoint; `resume` is auto, none, or a checkpoint's folder.

    With auto a newest checkpoint that is damaged is named, and the one before it is taken.

    Raises:
        UsageError: the named checkpoint is not there.
        BartError: the named one, or with auto every one, is damaged.
    """
    if resume == "none":
        return Progress()
    if resume != "auto":
        if not (Path(resume) / "state.json").is_file():
            raise UsageError(f"--resume {resume}: no checkpoint there")
        return load_checkpoint(Path(resume), model, optimizer, scaler)
    candidates = list_checkpoints(run)
    for folder in reversed(candidates):
        try:
            progress = load_checkpoint(folder, model, optimizer, scaler)
        except BartError as error:
            reporter.warn(f"checkpoint {folder} is damaged and skipped: {error.message}")
            continue
        reporter.info(f"resuming from {folder}")
        return progress
    if candidates:
        raise BartError(
            f"every checkpoint in {run} is damaged",
            hint="--resume none begins anew in another --out",
        )
    return Progress()


def load_checkpoint(
    folder: Path, model: Bart, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
) -> Progress:
    """Load one checkpoint into model, optimizer and scaler.

    Raises:
        BartError: a file is damaged or does not fit the model.
    """
    try:
        state: dict[str, Any] = json.loads((folder / "state.json").read_text())
        progress = Progress(**state["progress"])
        tensors = load_file(folder / "optimizer.safetensors")
        weights = load_model(folder / "model").model.state_dict()
        model.load_state_dict(weights)
        _restore_optimizer(model, optimizer, tensors)
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


def _optimizer_tensors(model: Bart, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}{SEPARATOR}{key}": torch.as_tensor(value).contiguous()
        for name, parameter in _named(model, optimizer)
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _restore_optimizer(
    model: Bart, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]
) -> None:
    states: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, part = key.partition(SEPARATOR)
        states.setdefault(name, {})[part] = tensor
    indices = {name: index for index, (name, _) in enumerate(_named(model, optimizer))}
    packed = optimizer.state_dict()
    packed["state"] = {indices[name]: state for name, state in states.items()}
    optimizer.load_state_dict(packed)
