"""Load a model and its tokenizer on a device in a given precision."""

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch

from bart_cli.config.data import LANGUAGES
from bart_cli.config.generation import DecodingPrecision, GenerationConfig, SavedGeneration
from bart_cli.config.presets import recorded_settings
from bart_cli.data.sentences import AUTO
from bart_cli.errors import UsageError
from bart_cli.inference.engine import Engine, int8_problem
from bart_cli.inference.products import measure_products
from bart_cli.model.formats import load_model, require_dictionary, require_room
from bart_cli.runtime.precision import apply_matmul_precision, is_emulated, problem_of
from bart_cli.tokenizer import Tokenizer

DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "int8": torch.float32,  # the engine quantizes it
}


@dataclass(frozen=True)
class InferenceModel:
    """A model ready for decoding."""

    model: Engine
    tokenizer: Tokenizer
    saved: SavedGeneration | None  # decoding settings saved with the model
    folder: Path
    precision: str = "fp32"  # in use
    notice: str | None = None  # reason why it is not the requested precision


def recorded_language(source: str | Path) -> str:
    """Read the sentence language of the run at or above `source`; auto if there is none."""
    path = Path(source).absolute()
    for folder in (path, *path.parents[:2]):
        evaluation = recorded_settings(folder).get("evaluation")
        if isinstance(evaluation, dict) and evaluation.get("language") in LANGUAGES:
            return str(evaluation["language"])
    return AUTO


def load_for_inference(
    source: str,
    precision: DecodingPrecision = "fp32",
    tokenizer: str | None = None,
    *,
    device: str = "auto",
    source_language: str | None = None,
    target_language: str | None = None,
) -> InferenceModel:
    """Load a run, a folder, a hub id or a checkpoint file for decoding.

    Args:
        precision: precision of the whole model; see `choose_precision`.
        tokenizer: folder or hub id, for formats without one.
        device: cpu, cuda, cuda:N, or auto.
        source_language, target_language: mBART language codes; None: as saved with the model.
    """
    allowed = get_args(DecodingPrecision)
    if precision not in allowed:
        raise UsageError(f"precision={precision!r}: expected {', '.join(allowed)}")
    if not isinstance(device, str):
        raise UsageError(f"device={device!r}: expected auto, cpu, cuda or cuda:N")
    place = find_device(device)
    precision, notice = choose_precision(precision, place)
    apply_matmul_precision("tf32" if precision == "tf32" else "fp32")
    loaded = load_model(source, device=place, dtype=DTYPES[precision])
    own = Tokenizer.from_pretrained(tokenizer) if tokenizer is not None else loaded.tokenizer
    if own is None:
        if any(loaded.folder.glob("*.model")):
            Tokenizer.from_pretrained(loaded.folder)  # raises with a conversion hint
        raise UsageError(
            f"{loaded.folder} has no tokenizer (tokenizer.json, or vocab.json and merges.txt)",
            hint="Add one with `bart export --tokenizer FOLDER`; `bart evaluate` "
            "also takes --set data.tokenizer=FOLDER.",
        )
    require_room(own, loaded.model.config)
    if own is not loaded.tokenizer:  # which `load_model` has checked
        require_dictionary(own, loaded.folder)
    own = own.with_languages(source_language, target_language)
    engine = Engine(loaded.model, int8=precision == "int8", name=source)
    own = own.fitted(loaded.model.config.vocab_size)
    return InferenceModel(engine, own, loaded.saved, loaded.folder, precision, notice)


def choose_precision(
    precision: DecodingPrecision, device: torch.device
) -> tuple[DecodingPrecision, str | None]:
    """Choose the decoding precision; return it with a notice if it is not the requested one.

    `auto` selects the fastest: bf16 on a GPU (fp16 before Ampere), and on a CPU the fastest in a
    measurement that takes a fraction of a second. On a CPU without native bf16, bf16 becomes fp32.
    """
    if precision == "auto" and device.type == "cuda":
        precision = "fp16" if problem_of("bf16", device) else "bf16"
        return precision, f"precision auto: {precision}"
    if precision == "auto":
        seconds = measure_products()
        precision = min(seconds, key=lambda name: seconds[name])
        ratio = seconds["fp32"] / seconds[precision]
        return precision, f"precision auto: {precision} ({ratio:.1f} x the products of fp32)"
    problem = int8_problem(device) if precision == "int8" else problem_of(precision, device)
    if problem:
        raise UsageError(problem.replace("training.precision", "precision"))
    if is_emulated(precision, device):
        return "fp32", "this CPU has no bf16 instructions: decoding in fp32, which is faster here"
    return precision, None


def in_language(tokenizer: Tokenizer, generation: GenerationConfig) -> GenerationConfig:
    """Make summaries begin with the tokenizer's target language, if it has one.

    mBART-50 generates the code first; mBART's decoder starts with it.
    """
    if tokenizer.target_language is None:
        return generation
    code = tokenizer.languages[tokenizer.target_language]
    if tokenizer.language_first:
        changes: dict[str, object] = {"forced_bos": True, "forced_bos_token": code}
    else:
        changes = {"forced_bos": False, "start_token": code}
    return generation.model_copy(update=changes)


def as_targets_begin(
    tokenizer: Tokenizer, generation: GenerationConfig, sources: dict[str, str]
) -> tuple[GenerationConfig, dict[str, str]]:
    """Drop a forced <s> from the settings and their sources if no target begins with it."""
    begins = tokenizer.bos_id in tokenizer.target_frame[0]
    if begins or not generation.forced_bos or generation.forced_bos_token is not None:
        return generation, sources
    return (
        generation.model_copy(update={"forced_bos": False}),
        sources | {"forced_bos": "the tokenizer, whose targets begin without <s>"},
    )


def find_device(name: str) -> torch.device:
    """Find a device by name; `auto` is the first GPU, or the CPU without one."""
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
        raise UsageError(f"device={name}: this machine {has}", hint="Use --device cpu or auto.")
    return torch.device(name)
