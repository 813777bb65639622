"""Weights in pickles of other tools, read without running what is in them.

In: a file of `torch.save`. Out: its content, with real tensors, containers and plain values; an
object of any other class becomes an `Inert` one, so that a hydra configuration, a tokenizer or a
Lightning callback beside the weights neither needs its library nor runs any code.
"""

from __future__ import annotations

import collections
import pickle
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import torch

from bart_cli.errors import BartError

# Functions and classes that make tensors; all others are replaced.
SAFE: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
    ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
}
POINTER = b"version https://git-lfs"


class Inert(dict):
    """Stands for an object of a class that is not loaded: keeps its attributes, does nothing."""

    __hash__ = object.__hash__  # type: ignore[assignment]

    def __new__(cls, *_: Any, **__: Any) -> Inert:
        """Ignore what the class would have been made with."""
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __call__(self, *_: Any, **__: Any) -> Inert:
        """Stand for the result, too."""
        return Inert()

    def __setstate__(self, state: Any) -> None:
        """Keep attributes under their names."""
        if isinstance(state, dict):
            self.update(state)

    def append(self, _: Any) -> None:
        """Take the items of a list, or of a set."""

    extend = add = append


def find_number(content: object, name: str) -> int | None:
    """A number below the options that a training tool saved: of argparse, hydra or plain dicts."""
    if isinstance(content, dict):
        found = content.get(name)
        found = found.get("_val") if isinstance(found, Inert) else found  # OmegaConf's node
        if isinstance(found, int):
            return found
        inner = (find_number(value, name) for key, value in content.items() if key != "_parent")
        return next((number for number in inner if number is not None), None)
    return None


class Unpickler(pickle.Unpickler):
    """Finds only SAFE things, dtypes and storages; torch adds its own lookup of storages."""

    def find_class(self, module: str, name: str) -> Any:
        """See pickle."""
        if found := SAFE.get((module, name)):
            return found
        if module == "torch":
            found = getattr(torch, name, None)
            if isinstance(found, torch.dtype) or name.endswith("Storage"):
                return found
        return Inert


def load(file: Any, **options: Any) -> Any:
    """`pickle.load` for torch, which takes this module as its `pickle_module`."""
    return Unpickler(file, **options).load()


def load_pickle(path: Path) -> Any:
    """The content of a file of `torch.save`.

    Raises:
        BartError: it cannot be read.
    """
    require_weights(path)
    zipped = zipfile.is_zipfile(path)
    reason = "it is damaged, or not torch.save's"
    try:
        if zipped and any(name.endswith("constants.pkl") for name in _names(path)):
            reason = "it is a TorchScript program"
        elif zipped or not tarfile.is_tarfile(path):
            # Safe: this module's Unpickler finds nothing that runs code.
            return torch.load(
                path, "cpu", pickle_module=sys.modules[__name__], weights_only=False, mmap=zipped
            )
    except Exception:  # unpickling raises whatever the file provokes
        pass
    raise BartError(
        f"{path}: cannot read the weights: {reason}",
        hint="Save the state dict of the model on its own: torch.save(model.state_dict(), FILE).",
    )


def require_weights(path: Path) -> None:
    """Raise BartError for a file that is missing, or stands for one that git has not fetched."""
    try:
        with path.open("rb") as file:
            pointer = file.read(len(POINTER)) == POINTER
    except OSError as error:
        raise BartError(
            f"{path}: cannot read the weights: {error.strerror}",
            hint="Download or copy the whole folder again.",
        ) from None
    if pointer:
        raise BartError(
            f"{path} is a Git LFS pointer, not the weights",
            hint=f"Fetch them: git -C {path.parent} lfs pull",
        )


def _names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as file:
        return file.namelist()
