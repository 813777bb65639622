"""A model with its tokenizer, on the right device and in the right arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from bart_cli.config.generation import GenerationConfig
from bart_cli.config.training import Precision
from bart_cli.errors import UsageError
from bart_cli.model.bart import Bart
from bart_cli.model.formats import load_model
from bart_cli.tokenizer import Tokenizer
from bart_cli.training.precision import apply_matmul_precision, problem_of

DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


@dataclass(frozen=True)
class InferenceModel:
    """What decoding needs. `generation`: settings that came with the model, if any."""

    model: Bart
    tokenizer: Tokenizer
    generation: GenerationConfig | None
    folder: Path


def load_for_inference(
    source: str, precision: Precision = "fp32", tokenizer: str | None = None
) -> InferenceModel:
    """Load a run, a folder, a hub id or a checkpoint file for decoding.

    Args:
        precision: arithmetic of the whole model.
        tokenizer: folder or hub id, for formats without one.

    Raises:
        UsageError: no model there, no tokenizer, or a precision that the device lacks.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    problem = problem_of(precision, device)
    if problem:
        raise UsageError(problem.replace("training.precision", "precision"))
    apply_matmul_precision(precision)
    loaded = load_model(source, device=device, dtype=DTYPES[precision])
    own = Tokenizer.from_pretrained(tokenizer) if tokenizer is not None else loaded.tokenizer
    if own is None:
        raise UsageError(
            f"{loaded.folder} has no tokenizer", hint="give one: --set data.tokenizer=FOLDER"
        )
    return InferenceModel(loaded.model, own, loaded.generation, loaded.folder)
