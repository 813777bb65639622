"""Load and save models: Hugging Face folders (our own format), the hub, the reference, fairseq.

In: a path or a hub id. Out: a `Bart` with its tokenizer, or a folder that `transformers` loads
without conversion (as `BartForConditionalGeneration`, or `MBart…` if the model is Pre-LN).
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from bart_cli import tokenizer_files
from bart_cli.config.generation import GenerationConfig, SavedGeneration
from bart_cli.config.model import DROPOUTS, ModelConfig
from bart_cli.errors import BartError, UsageError
from bart_cli.hub import fetch
from bart_cli.model import hf_config
from bart_cli.model.bart import Bart
from bart_cli.model.pickles import find_number, find_state, load_pickle, require_weights
from bart_cli.model.weights import State, infer_config, is_pre_layer_norm, rename
from bart_cli.tokenizer import Tokenizer

# Patterns of weight files that we cannot read -> description, and how to convert them.
CONVERT = "python -c \"from transformers import AutoModelForSeq2SeqLM as M; M.from_pretrained('{}'"
SAVE = ").save_pretrained('OUT')\""
FOREIGN = {
    "adapter_config.json": (
        "LoRA or other adapter weights (PEFT), not a whole model",
        'Merge them into their base model (pip install peft): python -c "from peft import '
        "AutoPeftModelForSeq2SeqLM as M; M.from_pretrained('{}').merge_and_unload()"
        ".save_pretrained('OUT')\"",
    ),
    "tf_model*.h5": (
        "TensorFlow weights",
        "Convert them (pip install 'transformers<5' tensorflow tf-keras): "
        f"{CONVERT}, from_tf=True{SAVE}",
    ),
    "flax_model*.msgpack": (
        "Flax weights",
        f"Convert them (pip install 'transformers<5' flax): {CONVERT}, from_flax=True{SAVE}",
    ),
    "rust_model.ot": ("weights for rust-bert", "Name the model that they were made of."),
    "model.bin": ("weights for CTranslate2", "Name the model that they were made of."),
    "*.onnx": ("ONNX graphs", "Name the model that they were made of."),
    "*.gguf": ("weights for llama.cpp", "Name the model that they were made of."),
    "openvino_*.xml": ("weights for OpenVINO", "Name the model that they were made of."),
    "zero_to_fp32.py": (
        "a sharded checkpoint of DeepSpeed",
        "Merge it (pip install deepspeed): python {0}/zero_to_fp32.py {0} {0}",
    ),
    "pytorch_model_fsdp_0": (
        "a sharded checkpoint of FSDP",
        "Merge it (pip install accelerate): accelerate merge-weights {0}/pytorch_model_fsdp_0 {0}",
    ),
}
# Weight files in the order in which transformers looks for them; each may be split, with an index.
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
# Forms of a checkpoint that is loaded by the name of its file.
FILES = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt")
# fairseq's dictionaries of denoising and of other tasks, and the id of their first line.
DICTIONARIES = ("dict.txt", "dict.source.txt")
FIRST_ROW = 4
MISSING_SHARE = 0.01  # largest share of tokenizer entries without an embedding
# Not `*.json`: a repository may also hold a trainer's state, several megabytes of JSON.
HUB_FILES = ("config.json", "generation_config.json", "*.index.json", *tokenizer_files.HUB_FILES)
# In order of preference: only the first format that a repository has is downloaded.
HUB_WEIGHTS = (
    *("model.safetensors", "model-*.safetensors"),
    *("pytorch_model.bin", "pytorch_model-*.bin"),
)
SEARCH = {"beams", "max_length", "length_penalty", "no_repeat_ngram"}


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode, with its tokenizer and decoding settings."""

    model: Bart
    tokenizer: Tokenizer | None  # None: no tokenizer files beside the weights (a single `.ckpt`)
    saved: SavedGeneration | None  # decoding settings saved with the model
    folder: Path  # of the weights

    @property
    def generation(self) -> GenerationConfig | None:
        """The saved decoding settings, or None if the file sets no search option."""
        if self.saved is None or not self.saved.stated & SEARCH:
            return None
        values = dict(self.saved.values)
        if not values.get("sample") and "top_k" not in self.saved.stated:
            del values["top_k"]  # unused without sampling; it is only the default of transformers
        return GenerationConfig.model_validate(values)


def write_weights(
    folder: Path,
    config: ModelConfig,
    weights: Mapping[str, Tensor],
    tokenizer: Tokenizer,
    generation: GenerationConfig | None,
) -> None:
    """Write configuration, weights in their dtype, tokenizer and decoding settings to a folder."""
    folder.mkdir(exist_ok=True)
    state = {name: tensor.contiguous() for name, tensor in weights.items()}
    dtype = str(state["model.shared.weight"].dtype).removeprefix("torch.")
    write_json(folder / "config.json", hf_config.to_hf(config) | {"torch_dtype": dtype})
    write_json(folder / "generation_config.json", hf_config.generation_to_hf(config, generation))
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    # safetensors 0.8 creates files that only their owner can read, even in a shared folder.
    shutil.copymode(folder / "config.json", folder / "model.safetensors")
    tokenizer.save(folder)


def load_model(
    source: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    dropouts: ModelConfig | None = None,
) -> LoadedModel:
    """Load a run folder, a checkpoint, a model folder, a hub id, a `.ckpt` or a fairseq `.pt`.

    The dropout rates come from `dropouts`, if given, instead of the model's configuration.
    """
    path = resolve_model(source)
    folder = path.parent if path.is_file() else path
    config, state = _read_file(path) if path.is_file() else _read_folder(path)
    if dropouts is not None:
        config = config.model_copy(update={name: getattr(dropouts, name) for name in DROPOUTS})
    model = build(config, state, path).to(device=device, dtype=dtype).eval()
    has_tokenizer = any((folder / name).is_file() for name in tokenizer_files.FILES)
    tokenizer = Tokenizer.from_pretrained(folder) if has_tokenizer else None
    if tokenizer is not None:
        require_dictionary(tokenizer, folder)
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        saved=_read_generation(folder, config),
        folder=folder,
    )


def resolve_model(source: str | Path, checkpoint: str | None = None) -> Path:
    """Find the model folder (with `config.json`), or the `.ckpt` or `.pt` file, of a name.

    For a run, this is its `best` model if it has validated, else its final `model`, else its newest
    checkpoint, or the `checkpoint` with this name: best, last or a step. A name that is not a path
    is looked up on the hub.
    """
    path = Path(source)
    if checkpoint is not None:
        return _checkpoint(path, checkpoint)
    if path.is_file():
        return path
    if not path.exists():
        return fetch(
            str(source),
            HUB_FILES,
            what="model",
            weights=HUB_WEIGHTS,
            foreign=FOREIGN,
            check=_read_config,
        )
    checkpoints = sorted(path.glob("checkpoints/step-*/model"), reverse=True)
    for folder in (path, path / "best", path / "model", *checkpoints):
        if (folder / "config.json").is_file():
            return folder
    _refuse_foreign(path)
    inner = sorted(file.parent for file in path.glob("*/config.json"))
    raise UsageError(
        f"no model in {path}: expected config.json and model.safetensors, or a run with "
        "checkpoints",
        hint=f"Name a model folder in it: {' or '.join(map(str, inner[:3]))}."
        if inner
        else _name_a_file(path),
    )


def model_files(folder: Path) -> list[Path]:
    """List the files of a folder that determine the output of its model."""
    forms = ("*.safetensors", "*.bin", "*.ckpt", "*.pt", "*config.json", *tokenizer_files.HUB_FILES)
    return sorted({path for form in forms for path in folder.glob(form)})


def _checkpoint(run: Path, name: str) -> Path:
    steps = {
        int(folder.parent.name.removeprefix("step-")): folder
        for folder in sorted(run.glob("checkpoints/step-*/model"))
        if (folder / "config.json").is_file()
    }
    named = {"best": run / "best", "last": run / "model"}
    if name == "last" and not named["last"].is_dir() and steps:
        return steps[max(steps)]
    folder = named.get(name) or steps.get(int(name) if name.isdecimal() else -1)
    if folder is not None and (folder / "config.json").is_file():
        return folder
    available = [word for word, path in named.items() if (path / "config.json").is_file()]
    available += [str(step) for step in steps]
    raise UsageError(
        f"--checkpoint {name}: not in {run}",
        hint=f"It has {', '.join(available)}."
        if available
        else "Pass --model with a run that has saved checkpoints.",
    )


def require_room(tokenizer: Tokenizer, config: ModelConfig, hint: str | None = None) -> None:
    """Check that a tokenizer fits the model: that nearly all of its entries have an embedding.

    A few may be missing: facebook/bart-large-cnn, for example, has none for <mask>, the last entry.
    """
    missing = tokenizer.tokens_from(config.vocab_size)
    if len(missing) > MISSING_SHARE * tokenizer.vocab_size and not (
        set(missing) <= set(tokenizer.added_tokens())
    ):
        raise UsageError(
            f"the tokenizer has {tokenizer.vocab_size:,} entries, but the model has "
            f"{config.vocab_size:,} embeddings",
            hint=hint,
        )


def require_dictionary(tokenizer: Tokenizer, folder: Path) -> None:
    """Check that a tokenizer has the ids of the dictionary beside a fairseq checkpoint, if any.

    A line of it is a token and its count. BART's tokens are the ids of GPT-2's tokens.

    Raises:
        UsageError: a token has another id.
    """
    path = next(filter(Path.is_file, map(folder.joinpath, DICTIONARIES)), None)
    if path is None or (folder / "config.json").is_file():
        return
    entries, gpt2 = tokenizer.entries, tokenizer.gpt2_ids()
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for row, line in enumerate(lines, FIRST_ROW):
        name = line.rsplit(" ", 1)[0]
        token = gpt2.get(name, name)
        if entries.get(token, row) != row:
            raise UsageError(
                f"{path}: token {token!r} has id {row} in the model, but {entries[token]} in the "
                "tokenizer",
                hint="Use the tokenizer that the model was trained with.",
            )


def build(config: ModelConfig, state: State, path: Path) -> Bart:
    """Build a model around these weights without copying them."""
    with torch.device("meta"), _NoInitialization():
        model = Bart(config)
    expected = model.state_dict()
    problems = [f"missing {name}" for name in expected if name not in state]
    problems += [f"unknown {name}" for name in state if name not in expected]
    pairs = [(name, state[name], expected[name]) for name in expected if name in state]
    problems += [
        f"{name} is {found.dtype}, expected floating-point numbers"
        for name, found, _ in pairs
        if not found.is_floating_point()
    ]
    problems += [
        f"{name} is {tuple(found.shape)}, expected {tuple(right.shape)}"
        for name, found, right in pairs
        if found.shape != right.shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UsageError(
            f"{path}: weights do not match config.json: {'; '.join(problems[:3])}{more}"
        )
    model.load_state_dict(state, assign=True)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model


class _NoInitialization(TorchFunctionMode):
    """Skip weight initialization: the weights are replaced at once.

    On the meta device it would cost no arithmetic, but slow imports.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def _read_folder(folder: Path) -> tuple[ModelConfig, State]:
    settings, config = _read_config(folder)
    state = rename(_read_weights(folder), folder)
    return _with_norms(config, settings, state, folder), state


def _read_config(folder: Path) -> tuple[dict[str, Any], ModelConfig]:
    """Read `config.json`, as it is and converted."""
    path = folder / "config.json"
    if not path.is_file():
        raise UsageError(f"no config.json in {folder}: this is not a model folder")
    settings = _read_json(path)
    return settings, hf_config.from_hf(settings, path)


def _with_norms(
    config: ModelConfig, settings: dict[str, Any], state: State, folder: Path
) -> ModelConfig:
    """Detect Pre-LN from the weights: old config files state it in several ways, or not at all."""
    pre_layer_norm = is_pre_layer_norm(state)
    if settings.get("normalize_before") and not pre_layer_norm:
        raise UsageError(
            f"{folder / 'config.json'}: normalize_before=True, but the weights have no final "
            "LayerNorm (model.encoder.layer_norm); Pre-LN without one is not implemented"
        )
    return config.model_copy(update={"pre_layer_norm": pre_layer_norm or config.pre_layer_norm})


def _read_weights(folder: Path) -> State:
    for whole in WEIGHTS:
        index = folder / f"{whole}.index.json"
        if (folder / whole).is_file():
            return _read_tensors(folder / whole)
        if index.is_file():
            files = _read_json(index).get("weight_map")
            if not isinstance(files, dict) or not all(isinstance(f, str) for f in files.values()):
                raise UsageError(f"{index}: expected weight_map, a map from tensor to file")
            state: State = {}
            for name in sorted(set(files.values())):
                state.update(_read_tensors(folder / name))
            return state
    _refuse_foreign(folder)
    raise UsageError(
        f"no weights in {folder}: expected {' or '.join(WEIGHTS)}", hint=_name_a_file(folder)
    )


def _name_a_file(folder: Path) -> str | None:
    """Suggest to name a checkpoint in the folder, or to complete shards; None if it has neither."""
    files = sorted(path for form in FILES for path in folder.glob(form))
    if any("-of-0" in file.name for file in files):
        return "Download or copy its *.index.json too."
    return f"Name a file in it: {' or '.join(map(str, files[:3]))}." if files else None


def _read_tensors(path: Path) -> State:
    return find_state(_read_content(path), path)


def _read_content(path: Path) -> Any:
    """Read a file of weights, with everything that a pickle holds besides them."""
    if path.suffix != ".safetensors":
        return load_pickle(path)
    require_weights(path)
    try:
        return load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise BartError(
            f"{path}: cannot read the weights: {error}", hint="Download or copy the file again."
        ) from None


def _refuse_foreign(folder: Path) -> None:
    """Raise UsageError if a folder has another library's weights, with a hint to convert them."""
    for form, (kind, remedy) in FOREIGN.items():
        if files := sorted(folder.glob(form)):
            raise UsageError(f"{folder} holds {kind} ({files[0].name})", hint=remedy.format(folder))


def _read_file(path: Path) -> tuple[ModelConfig, State]:
    """Read a checkpoint of NVIDIA, fairseq, Lightning or a training loop, or a bare state dict."""
    content = _read_content(path)
    state = rename(find_state(content, path), path)
    if (path.parent / "config.json").is_file():
        settings, config = _read_config(path.parent)
        return _with_norms(config, settings, state, path.parent), state
    sides = ("encoder", "decoder")
    heads = {side: find_number(content, f"{side}_attention_heads") for side in sides}
    config = infer_config(state, path, heads)
    # fairseq's mBART scales embeddings; its BART does not.
    scale = find_number(content, "no_scale_embedding") == 0
    return config.model_copy(update={"scale_embedding": scale}), state


def saved_generation(source: str | Path) -> SavedGeneration | None:
    """Read the decoding settings saved with a run, a checkpoint, a model folder or a hub model."""
    path = resolve_model(source)
    folder = path.parent if path.is_file() else path
    config_path = folder / "config.json"
    if not config_path.is_file():
        return None
    settings = _read_json(config_path)
    if path.is_file():  # a reference checkpoint: only its weights tell Pre-LN from post-LN
        settings["model_type"] = "bart"
    return _read_generation(folder, hf_config.from_hf(settings, config_path))


def _read_generation(folder: Path, config: ModelConfig) -> SavedGeneration | None:
    """Read the decoding settings of the first file that exists, as transformers does."""
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        if path.is_file():
            return hf_config.generation_from_hf(_read_json(path), path, config)
    return None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UsageError(f"{path}: not valid JSON: {error}") from None
    except RecursionError:
        raise UsageError(f"{path}: not valid JSON: nested too deeply") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path}: expected a JSON object")
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file, indented."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
