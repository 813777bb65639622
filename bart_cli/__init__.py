"""BART from corpus to summary: a command line on top of three engines (data, training, inference).

The names in MODULES are the Python API (docs/api.md). They are imported on first use, because torch
is slow to import.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bart_cli.config.generation import GenerationConfig as GenerationConfig
    from bart_cli.errors import BartError as BartError
    from bart_cli.inference.generate import generate as generate
    from bart_cli.inference.load import load_for_inference as load_for_inference
    from bart_cli.summarize.summarizer import Summarizer as Summarizer
    from bart_cli.summarize.summarizer import Summary as Summary
    from bart_cli.tokenizer import Tokenizer as Tokenizer

__version__ = "0.1.0"

MODULES = {
    "BartError": "errors",
    "GenerationConfig": "config.generation",
    "Summarizer": "summarize.summarizer",
    "Summary": "summarize.summarizer",
    "Tokenizer": "tokenizer",
    "generate": "inference.generate",
    "load_for_inference": "inference.load",
}


def __getattr__(name: str) -> object:
    if name not in MODULES:
        raise AttributeError(f"module 'bart_cli' has no attribute {name!r}")
    return getattr(importlib.import_module(f"bart_cli.{MODULES[name]}"), name)


def __dir__() -> list[str]:
    """List the names of the API for `dir(bart_cli)` and completion."""
    return [*MODULES, "__version__"]
