"""`bart export`: write a model in another tool's format, and verify it before it appears.

In: a run, a folder, a hub id or a checkpoint. Out: a folder with the model and a model card.
"""

import importlib.util
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from bart_cli.config.commands import ExportConfig, ExportDtype
from bart_cli.config.model import ModelConfig
from bart_cli.errors import BartError, UsageError
from bart_cli.export import card
from bart_cli.export.contents import Comparison, Contents, require_equal
from bart_cli.export.history import read_history
from bart_cli.export.push import Pushed, push, require_destination
from bart_cli.extras import require
from bart_cli.files import atomic_folder, sha256, write_text
from bart_cli.model import hf_config
from bart_cli.model.formats import (
    LoadedModel,
    load_model,
    require_dictionary,
    require_room,
    write_json,
    write_weights,
)
from bart_cli.model.weights import State
from bart_cli.progress import Reporter
from bart_cli.runtime.locks import locked_path
from bart_cli.tokenizer import Tokenizer

DTYPES: dict[ExportDtype, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
CHECKPOINT = "final_step.ckpt"  # the reference's final model: a bare state dict
# No special token in it: transformers maps `<s>` in a text to its id, we treat it as text.
SAMPLE = "Café owners – 24 of them – said: “nobody laughed” 🤷🏽 at the mask in 1998.\n"


@dataclass(frozen=True)
class Export:
    """Result of an export."""

    out: Path
    layout: str  # BART, mBART (Pre-LN), reference, CTranslate2 or ONNX
    dtype: ExportDtype
    parameters: int
    size: int  # total size of the files, in bytes
    difference: float | None  # that of `comparison`
    # the export against the model; None: transformers is not installed
    comparison: Comparison | None
    evaluations: int  # number of evaluations in the model card
    pushed: Pushed | None  # the uploaded repository; None without `--push`


def export_model(
    source: str, out: Path, config: ExportConfig, reporter: Reporter = Reporter()
) -> Export:
    """Export a model to the folder `out`, which appears only once it has been verified.

    With `config.push`, the folder is uploaded too. It may then already exist if it contains the
    same export: a failed upload is repeated, including an edited model card and added files.
    """
    if not out.name:
        raise UsageError(f"--out {out} names an existing folder; pass a new name")
    if config.push is not None:
        require_destination(config.push)
    if config.format in ("ctranslate2", "onnx"):
        require(f"--format {config.format}", config.format)
    with locked_path(out, reporter):
        return _export(source, out, config, reporter)


def _export(source: str, out: Path, config: ExportConfig, reporter: Reporter) -> Export:
    occupied = out.exists() and (not out.is_dir() or any(out.iterdir()))
    if occupied and (config.push is None or not out.is_dir()):
        raise UsageError(f"--out {out} already exists", hint="Remove it, or choose another --out.")
    loaded = load_model(source) if config.average == 1 else load_average(source, config.average)
    tokenizer = loaded.tokenizer
    if config.tokenizer is not None:
        tokenizer = Tokenizer.from_pretrained(config.tokenizer)
    if tokenizer is None:
        raise UsageError(f"{source} has no tokenizer", hint="Pass --tokenizer FOLDER_OR_HUB_ID.")
    model = loaded.model
    require_room(tokenizer, model.config)
    require_dictionary(tokenizer, loaded.folder)
    weights = _cast(model.state_dict(), config.dtype)
    model.load_state_dict(weights)  # rounded like the export, for a fair comparison
    contents = Contents(model, weights, config.dtype, tokenizer, loaded.generation)
    history = read_history(source)
    if history.others:
        reporter.info(
            f"not in the model card, because they scored other weights: {', '.join(history.others)}"
        )
    if config.average > 1 or config.tokenizer is not None:
        history = replace(history, evaluations=[])  # they scored other weights or token ids
    layout = _layout(config, model.config)
    text = card.sign(card.write(history, contents, config, config.push or out.name, layout))
    if occupied:
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as name:
            comparison = _write(Path(name), contents, config, history.articles)
            _require_same(Path(name), out)
        _renew_card(out / card.NAME, text, reporter)
    else:
        with atomic_folder(out) as temporary:
            comparison = _write(temporary, contents, config, history.articles)
            (temporary / card.NAME).write_text(text, encoding="utf-8")
    return Export(
        out=out,
        layout=layout,
        dtype=config.dtype,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        size=sum(file.stat().st_size for file in out.rglob("*") if file.is_file()),
        difference=comparison.difference if comparison else None,
        comparison=comparison,
        evaluations=len(history.evaluations),
        pushed=push(out, config.push, config.private, reporter) if config.push else None,
    )


def _write(
    folder: Path, contents: Contents, config: ExportConfig, articles: Callable[[int], list[str]]
) -> Comparison | None:
    """Write all files except the model card, and compare them with the model.

    `articles` returns at most the given number of articles of the run.
    """
    if config.format == "ctranslate2":
        from bart_cli.export.to_ctranslate2 import write_ctranslate2

        return write_ctranslate2(folder, contents, articles)
    if config.format == "onnx":
        from bart_cli.export.to_onnx import write_onnx

        return write_onnx(folder, contents)
    if config.format == "reference":
        _write_reference(folder, contents)
    else:
        shape, words = contents.model.config, contents.tokenizer
        write_weights(folder, shape, contents.weights, words, contents.generation)
    return _compare(folder, contents, config)


def _layout(config: ExportConfig, model: ModelConfig) -> str:
    own = "mBART" if model.pre_layer_norm else "BART"
    names = {"huggingface": own, "ctranslate2": "CTranslate2", "onnx": "ONNX"}
    return names.get(config.format, config.format)


def _require_same(written: Path, out: Path) -> None:
    """Raise UsageError unless `out` contains every file of `written`, byte for byte."""
    for file in sorted(path for path in written.rglob("*") if path.is_file()):
        there = out / file.relative_to(written)
        if not there.is_file() or sha256(there) != sha256(file):
            raise UsageError(
                f"--out {out} already exists, and its {there.name} differs from this export",
                hint="Remove it, or choose another --out.",
            )


def _renew_card(path: Path, text: str, reporter: Reporter) -> None:
    """Replace the model card, unless a person has edited it."""
    if path.is_file() and card.is_edited(path.read_bytes()):
        reporter.info(f"{path} was edited: it is kept")
    else:
        write_text(path, text)


def load_average(run: str, count: int) -> LoadedModel:
    """Load the newest checkpoint of a run with the mean weights of its newest `count` checkpoints.

    Holds one model in fp32 in memory, plus one tensor of another checkpoint at a time.
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


def _write_reference(folder: Path, contents: Contents) -> None:
    config = contents.model.config
    state: State = {}
    for name, tensor in contents.weights.items():
        for side in ("encoder", "decoder"):
            name = name.replace(f"model.{side}.layer_norm.", f"model.{side}.last_layernorm.")
        state[name] = tensor
    for name in ("model.encoder.embed_tokens", "model.decoder.embed_tokens", "lm_head"):
        state[f"{name}.weight"] = state["model.shared.weight"]  # one storage, written once
    torch.save(state, folder / CHECKPOINT)
    settings = hf_config.to_hf(config) | {"model_type": "bart", "pre_ln": config.pre_layer_norm}
    settings["architectures"] = ["BartForConditionalGeneration"]
    if contents.generation is not None:  # the reference reads decoding settings from config.json
        settings |= hf_config.generation_to_hf(config, contents.generation)
        settings["force_bos_token_to_be_generated"] = contents.generation.forced_bos
    write_json(folder / "config.json", settings)
    contents.tokenizer.save(folder)


def _compare(folder: Path, contents: Contents, config: ExportConfig) -> Comparison | None:
    """Compare the logits, or return None if transformers is not installed."""
    model, settings = contents.model, contents.model.config
    length = min(16, settings.max_position_embeddings)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(settings.vocab_size, (2, 2, length), generator=generator)
    source, target = ids.unbind()
    with torch.inference_mode():
        expected = model.logits(model(source, None, target))
        if config.format == "reference":
            reader = "our own reader"
            other = load_model(folder / CHECKPOINT).model
            found = other.logits(other(source, None, target))
        elif importlib.util.find_spec("transformers") is None:
            return None
        else:
            reader = "transformers"
            theirs = _load_theirs(folder, settings, contents.tokenizer)
            found = theirs(input_ids=source, decoder_input_ids=target).logits
    return Comparison(reader, require_equal(found, expected))


def _load_theirs(folder: Path, settings: ModelConfig, tokenizer: Tokenizer) -> Any:
    """Load the export with `transformers`, in fp32, and compare its tokenizer with ours."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
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
