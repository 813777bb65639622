"""`bart export`: write a model in another tool's format, and verify it before it appears.

In: a run, a folder, a hub id or a checkpoint. Out: a Hugging Face folder or NVIDIA's checkpoint.
"""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from bart_cli.config.export import ExportConfig, ExportDtype
from bart_cli.config.generation import GenerationConfig
from bart_cli.config.model import ModelConfig
from bart_cli.errors import BartError, UsageError
from bart_cli.files import atomic_folder
from bart_cli.model import hf_config
from bart_cli.model.bart import Bart
from bart_cli.model.formats import LoadedModel, load_model, require_room, write_json, write_weights
from bart_cli.model.weights import State
from bart_cli.progress import Reporter
from bart_cli.runtime.locks import locked_path
from bart_cli.tokenizer import Tokenizer

DTYPES: dict[ExportDtype, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
CHECKPOINT = "final_step.ckpt"  # the reference saves its final model so, as a bare state dict
TOLERANCE = 1e-4  # largest difference of logits, relative to the largest logit (at least 1)
# No special token in it: transformers maps `<s>` in a text to its id, we treat it as text.
SAMPLE = "Café owners – 24 of them – said: “nobody laughed” 🤷🏽 at the mask in 1998.\n"


@dataclass(frozen=True)
class Export:
    """Result of an export.

    Attributes:
        layout: BART, mBART (Pre-LN) or reference.
        size: total size of the files, in bytes.
        difference: largest difference between the logits of the model and those of the export as
            `transformers` loads it (for the reference layout: as we load it). None: transformers is
            not installed.
    """

    out: Path
    layout: str
    dtype: ExportDtype
    parameters: int
    size: int
    difference: float | None


def export_model(source: str, out: Path, config: ExportConfig) -> Export:
    """Export a model to the folder `out`, which appears only once it has been verified.

    Raises:
        UsageError: there is no model or no tokenizer, or `out` exists and is not empty.
        BartError: a weight exceeds the range of the dtype, or the export does not give the same
            logits or token ids as the model.
    """
    if not out.name:
        raise UsageError(f"--out {out} names an existing folder; pass a new name")
    with locked_path(out, Reporter()):
        return _export(source, out, config)


def _export(source: str, out: Path, config: ExportConfig) -> Export:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--out {out} already exists", hint="Remove it, or choose another --out.")
    loaded = load_model(source) if config.average == 1 else load_average(source, config.average)
    tokenizer = loaded.tokenizer
    if config.tokenizer is not None:
        tokenizer = Tokenizer.from_pretrained(config.tokenizer)
    if tokenizer is None:
        raise UsageError(f"{source} has no tokenizer", hint="Pass --tokenizer FOLDER_OR_HUB_ID.")
    model = loaded.model
    require_room(tokenizer, model.config)
    weights = _cast(model.state_dict(), config.dtype)
    with atomic_folder(out) as temporary:
        if config.format == "reference":
            layout = "reference"
            _write_reference(temporary, model.config, weights, tokenizer, loaded.generation)
        else:
            layout = "mBART" if model.config.pre_layer_norm else "BART"
            write_weights(temporary, model.config, weights, tokenizer, loaded.generation)
        model.load_state_dict(weights)  # rounded like the export, for a fair comparison
        difference = _check(temporary, model, tokenizer, config)
        size = sum(file.stat().st_size for file in temporary.iterdir())
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Export(out, layout, config.dtype, parameters, size, difference)


def load_average(run: str, count: int) -> LoadedModel:
    """Load the newest checkpoint of a run with the mean weights of its newest `count` checkpoints.

    Holds one model in fp32 in memory, plus one tensor of another checkpoint at a time.

    Raises:
        UsageError: the run has fewer checkpoints.
        BartError: a weight file is damaged.
    """
    folders = sorted(Path(run).glob("checkpoints/step-*/model"))
    if len(folders) < count:
        raise UsageError(
            f"--average {count}: {run} has {len(folders)} checkpoints",
            hint=f"Train with --set training.keep_last={count}, or average fewer.",
        )
    loaded = load_model(folders[-1])
    totals = loaded.model.state_dict()
    for folder in folders[-count:-1]:
        path = folder / "model.safetensors"
        try:
            with safe_open(path, "pt") as file:
                for name, total in totals.items():
                    total += file.get_tensor(name).float()
        except (SafetensorError, OSError, RuntimeError) as error:
            raise BartError(f"{path}: cannot read the weights: {error}") from None
    for total in totals.values():
        total /= count
    return loaded


def _cast(weights: State, dtype: ExportDtype) -> State:
    cast = {name: tensor.to(DTYPES[dtype]) for name, tensor in weights.items()}
    for name, tensor in cast.items():
        if not bool(torch.isfinite(tensor).all()):
            raise BartError(
                f"{name} has non-finite values in {dtype}",
                hint="Use bf16 or fp32, which have a larger range." if dtype == "fp16" else None,
            )
    return cast


def _write_reference(
    folder: Path,
    config: ModelConfig,
    weights: State,
    tokenizer: Tokenizer,
    generation: GenerationConfig | None,
) -> None:
    state: State = {}
    for name, tensor in weights.items():
        for side in ("encoder", "decoder"):
            name = name.replace(f"model.{side}.layer_norm.", f"model.{side}.last_layernorm.")
        state[name] = tensor
    for name in ("model.encoder.embed_tokens", "model.decoder.embed_tokens", "lm_head"):
        state[f"{name}.weight"] = state["model.shared.weight"]  # one storage, written once
    torch.save(state, folder / CHECKPOINT)
    settings = hf_config.to_hf(config) | {"model_type": "bart", "pre_ln": config.pre_layer_norm}
    settings["architectures"] = ["BartForConditionalGeneration"]
    if generation is not None:  # the reference reads decoding settings from config.json
        settings |= hf_config.generation_to_hf(config, generation)
        settings["force_bos_token_to_be_generated"] = generation.forced_bos
    write_json(folder / "config.json", settings)
    tokenizer.save(folder)


def _check(folder: Path, model: Bart, tokenizer: Tokenizer, config: ExportConfig) -> float | None:
    """Return the largest difference of logits, or None if transformers is not installed."""
    settings = model.config
    length = min(16, settings.max_position_embeddings)
    generator = torch.Generator().manual_seed(0)
    source, target = torch.randint(
        0, settings.vocab_size, (2, 2, length), generator=generator
    ).unbind()
    with torch.inference_mode():
        expected = model.logits(model(source, None, target))
        if config.format == "reference":
            other = load_model(folder / CHECKPOINT).model
            found = other.logits(other(source, None, target))
        elif importlib.util.find_spec("transformers") is None:
            return None
        else:
            theirs = _load_theirs(folder, settings, tokenizer)
            found = theirs(input_ids=source, decoder_input_ids=target).logits
    difference = float((found - expected).abs().max())
    if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
        raise BartError(
            f"the export's logits differ by {difference:.3g} from the model's; it was deleted"
        )
    return difference


def _load_theirs(folder: Path, settings: ModelConfig, tokenizer: Tokenizer) -> Any:
    """Load the export with `transformers`, in fp32, and compare its tokenizer with ours."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    words = transformers.AutoTokenizer.from_pretrained(folder)
    special = [tokenizer.bos_id, tokenizer.pad_id, tokenizer.eos_id, tokenizer.mask_id]
    found = [words.bos_token_id, words.pad_token_id, words.eos_token_id, words.mask_token_id]
    if words(SAMPLE)["input_ids"] != tokenizer.encode(SAMPLE) or found != special:
        raise BartError(
            "the export's tokenizer gives other token ids than the model's; it was deleted"
        )
    kind = "MBart" if settings.pre_layer_norm else "Bart"
    theirs, info = getattr(transformers, f"{kind}ForConditionalGeneration").from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    if info["unexpected_keys"] or info["mismatched_keys"]:
        raise BartError(f"transformers cannot load all exported weights: {info}")
    return theirs.eval()
