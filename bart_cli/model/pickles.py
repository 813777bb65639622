"""Read weights from pickles without running any code in them, and find the state dict in them.

In: a file written by `torch.save`. Out: its content, with tensors, containers and plain values. An
object of any other class becomes `Inert`, so a hydra configuration, a tokenizer or a Lightning
callback saved with the weights neither requires its library nor runs code.
"""

from __future__ import annotations

import collections
import pickle
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bart_cli.errors import BartError, UsageError
from bart_cli.model.weights import EMBEDDING, State

# Functions and classes that build tensors; all others are replaced by Inert.
SAFE: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
    ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch", "Tensor"): torch.Tensor,
    ("torch._tensor", "_rebuild_from_type_v2"): torch._tensor._rebuild_from_type_v2,
    ("torch._utils", "_rebuild_parameter_with_state"): torch._utils._rebuild_parameter_with_state,
}
POINTER = b"version https://git-lfs"
# Keys under which training tools store the state dict.
NESTED = ("state_dict", "model_state_dict", "model", "module")


class Inert(dict):
    """Placeholder for an object whose class is not loaded: stores its attributes, runs nothing."""

    __hash__ = object.__hash__  # type: ignore[assignment]

    def __new__(cls, *_: Any, **__: Any) -> Inert:
        """Ignore the arguments of the constructor."""
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __call__(self, *_: Any, **__: Any) -> Inert:
        """Return a placeholder for the result."""
        return Inert()

    def __setstate__(self, state: Any) -> None:
        """Store the attributes under their names."""
        if isinstance(state, dict):
            self.update(state)

    def append(self, _: Any) -> None:
        """Ignore the items of a list or a set."""

    extend = add = append


def find_number(content: object, name: str) -> int | None:
    """Find an integer by name in nested options saved by argparse, hydra or as plain dicts."""
    if isinstance(content, dict):
        found = content.get(name)
        found = found.get("_val") if isinstance(found, Inert) else found  # a node of OmegaConf
        if isinstance(found, int):
            return found
        inner = (find_number(value, name) for key, value in content.items() if key != "_parent")
        return next((number for number in inner if number is not None), None)
    return None


def find_state(content: object, path: Path) -> State:
    """Find the state dict in the content of a checkpoint; `path` is used in error messages."""
    while isinstance(content, Mapping) and not isinstance(content, Inert):
        inner = [content[key] for key in NESTED if key in content]
        inner = inner or [value for value in content.values() if _is_model(value)]
        if len(inner) != 1 or isinstance(inner[0], Tensor):
            break
        content = inner[0]
    if isinstance(content, Inert) and "_modules" in content:
        return _module_state(content)
    if not isinstance(content, Mapping) or isinstance(content, Inert):
        raise UsageError(
            f"{path}: expected a state dict, found {_type_name(content)}",
            hint="Save the state dict of the model: torch.save(model.state_dict(), FILE).",
        )
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise UsageError(
                f"{path}: expected a state dict, but {name!r} is {_type_name(value)}, not a tensor"
            )
        if not isinstance(name, str):
            raise UsageError(f"{path}: expected a state dict, but {name!r} is not a tensor name")
    return dict(content)


def _is_model(value: object) -> bool:
    """Whether a value in a checkpoint is a state dict with an embedding, or a whole module."""
    return isinstance(value, Mapping) and (
        "_modules" in value or any(str(name).endswith(EMBEDDING) for name in value)
    )


def _module_state(module: Inert, prefix: str = "") -> State:
    """Return the state dict of a module that was saved as a whole: torch.save(model, FILE)."""
    own = {**module.get("_parameters", {}), **module.get("_buffers", {})}
    state = {prefix + name: value for name, value in own.items() if isinstance(value, Tensor)}
    for name, child in module.get("_modules", {}).items():
        if isinstance(child, Inert):
            state |= _module_state(child, f"{prefix}{name}.")
    return state


def _type_name(value: object) -> str:
    return "an object" if isinstance(value, Inert) else type(value).__name__


class Unpickler(pickle.Unpickler):
    """Resolve only SAFE functions and classes, dtypes and storage types."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the object of a global name, or Inert; called by `pickle.Unpickler.load`."""
        if found := SAFE.get((module, name)):
            return found
        if module == "torch":
            found = getattr(torch, name, None)
            if isinstance(found, torch.dtype) or name.endswith("Storage"):
                return found
        return Inert


def load(file: Any, **options: Any) -> Any:
    """Replace `pickle.load`: torch.load is given this module as its `pickle_module`."""
    return Unpickler(file, **options).load()


def load_pickle(path: Path) -> Any:
    """Read a file written by `torch.save`."""
    require_weights(path)
    zipped = zipfile.is_zipfile(path)
    reason = "it is damaged, or not torch.save's"
    hint = "Copy it again, or save the state dict alone: torch.save(model.state_dict(), FILE)."
    try:
        if zipped and any(name.endswith("constants.pkl") for name in _names(path)):
            reason = "it is a TorchScript program"
        elif tarfile.is_tarfile(path) or (zipped and "data.pkl" not in str(_names(path))):
            reason, hint = "it is an archive", "Unpack it, and name the checkpoint in it."
        else:
            # Safe without weights_only: the Unpickler above resolves nothing that runs code.
            return torch.load(
                path, "cpu", pickle_module=sys.modules[__name__], weights_only=False, mmap=zipped
            )
    except Exception:  # a damaged pickle can raise any exception
        pass
    raise BartError(f"{path}: cannot read the weights: {reason}", hint=hint)


def require_weights(path: Path) -> None:
    """Raise BartError if a file is missing, empty or text, such as a web page or an LFS pointer."""
    try:
        with path.open("rb") as file:
            head = file.read(40)
    except OSError as error:
        raise BartError(
            f"{path}: cannot read the weights: {error.strerror}",
            hint="Download or copy the whole folder again.",
        ) from None
    if head.startswith(POINTER):
        raise BartError(
            f"{path} is a Git LFS pointer, not the weights",
            hint=f"Fetch them: git -C {path.parent} lfs pull",
        )
    text = " ".join(head.strip(b"\0").decode("ascii", "replace").split())
    if text.isascii() and text.isprintable():  # all formats of weights begin with other bytes
        found = f"text, not weights: it begins with {text!r}" if text else "empty"
        raise BartError(f"{path} is {found}", hint="Download or copy it again.")


def _names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as file:
        return file.namelist()
