"""A model with its tokenizer, on the right device and in the right arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from bart_cli.config.generation import DecodingPrecision, GenerationConfig
from bart_cli.errors import UsageError
from bart_cli.inference.engine import Engine, int8_problem
from bart_cli.model.formats import load_model, require_room
from bart_cli.tokenizer import Tokenizer
from bart_cli.training.precision import apply_matmul_precision, problem_of

DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "int8": torch.float32,  # the engine makes integers of it
}


@dataclass(frozen=True)
class InferenceModel:
    """What decoding needs. `generation`: settings that came with the model, if any."""

    model: Engine
    tokenizer: Tokenizer
    generation: GenerationConfig | None
    folder: Path


def load_for_inference(
    source: str,
    precision: DecodingPrecision = "fp32",
    tokenizer: str | None = None,
    *,
    device: str = "auto",
) -> InferenceModel:
    """Load a run, a folder, a hub id or a checkpoint file for decoding.

    Args:
        precision: arithmetic of the whole model.
        tokenizer: folder or hub id, for formats without one.
        device: cpu, cuda, cuda:N, or auto.

    Raises:
        UsageError: no model there, no tokenizer, no such device, or a precision that it lacks.
    """
    if precision not in DTYPES:
        raise UsageError(f"precision={precision!r}: allowed are {', '.join(DTYPES)}")
    if not isinstance(device, str):
        raise UsageError(f"device={device!r}: expected auto, cpu, cuda or cuda:N")
    place = find_device(device)
    problem = int8_problem(place) if precision == "int8" else problem_of(precision, place)
    if problem:
        raise UsageError(problem.replace("training.precision", "precision"))
    apply_matmul_precision("tf32" if precision == "tf32" else "fp32")
    loaded = load_model(source, device=place, dtype=DTYPES[precision])
    own = Tokenizer.from_pretrained(tokenizer) if tokenizer is not None else loaded.tokenizer
    if own is None:
        if any(loaded.folder.glob("*.model")):
            Tokenizer.from_pretrained(loaded.folder)  # raises, with the way to convert it
        raise UsageError(
            f"{loaded.folder} has no tokenizer (tokenizer.json, or vocab.json and merges.txt)",
            hint="`bart export` with --tokenizer writes a folder that has one; `bart evaluate` "
            "also takes --set data.tokenizer=FOLDER",
        )
    require_room(own, loaded.model.config)
    engine = Engine(loaded.model, int8=precision == "int8", name=source)
    own = own.fitted(loaded.model.config.vocab_size)
    return InferenceModel(engine, own, loaded.generation, loaded.folder)


def find_device(name: str) -> torch.device:
    """The device of a name; `auto` is the first GPU, or the CPU where there is none.

    Raises:
        UsageError: this machine has no such device.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if gpus else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    kind, _, number = name.partition(":")
    if kind != "cuda" or not (number.isdecimal() or not number):
        raise UsageError(f"device={name}: expected auto, cpu, cuda or cuda:N")
    if int(number or 0) >= gpus:
        has = f"has {gpus} GPUs" if gpus else "has no GPU that torch can use"
        raise UsageError(f"device={name}: this machine {has}", hint="use --device cpu or auto")
    return torch.device(name)
