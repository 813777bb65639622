"""Optional dependencies (extras), and the error if a command needs one that is not installed.

In: the extras or modules that a command needs. Out: a BartError whose hint is the command that
installs the missing extras.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from bart_cli.errors import BartError

CLONE = Path(__file__).parents[1]  # a clone of the repository, if it contains pyproject.toml


@dataclass(frozen=True)
class Extra:
    """The purpose of an extra, and its packages: distribution -> module to import."""

    use: str
    packages: dict[str, str]


EXTRAS = {
    "data": Extra(
        "bart download, bart preprocess pretrain, data sets on the hub, web pages",
        {
            "datasets": "datasets",
            "dask": "distributed",
            "requests": "requests",
            "fastwarc": "fastwarc",
            "resiliparse": "resiliparse",
            "trafilatura": "trafilatura",
            "webencodings": "webencodings",
            "brotli": "brotli",
            "lxml_html_clean": "lxml_html_clean",
        },
    ),
    "eval": Extra(
        "bart evaluate, validation with ROUGE, the final evaluation of bart finetune",
        {"rouge-score": "rouge_score", "sacrebleu": "sacrebleu"},
    ),
    "serve": Extra(
        "bart serve",
        {
            "starlette": "starlette",
            "uvicorn": "uvicorn",
            "prometheus-client": "prometheus_client",
            "pypdf": "pypdf",
            "python-docx": "docx",
        },
    ),
    "bertscore": Extra("evaluation.metrics=bertscore", {"transformers": "transformers"}),
    "wandb": Extra("training.loggers=wandb", {"wandb": "wandb"}),
    "mlflow": Extra(
        "training.loggers=mlflow",
        {"mlflow-skinny": "mlflow", "sqlalchemy": "sqlalchemy", "alembic": "alembic"},
    ),
    "trackio": Extra("training.loggers=trackio", {"trackio": "trackio"}),
    "ctranslate2": Extra(
        "bart export --format ctranslate2",
        {"ctranslate2": "ctranslate2", "transformers": "transformers"},
    ),
    "onnx": Extra(
        "bart export --format onnx",
        {"onnx": "onnx", "onnxscript": "onnxscript", "onnxruntime": "onnxruntime"},
    ),
    "news": Extra(
        "bart download common-crawl --extractor news-please", {"news-please": "newsplease"}
    ),
}


def require(user: str, *extras: str, otherwise: str | None = None) -> None:
    """Check that extras are installed, before starting work that needs them.

    Args:
        user: the command, option or input that needs them.
        otherwise: an alternative, as an imperative; added to the hint.

    Raises:
        BartError: a module is missing. The hint is the command that installs it.
    """
    missing = {extra: found for extra in extras if (found := missing_modules(extra))}
    if missing:
        modules = [module for found in missing.values() for module in found]
        raise _error(user, [*missing], modules, otherwise)


def missing_modules(extra: str) -> list[str]:
    """Return the modules of an extra that are not installed."""
    return [module for module in EXTRAS[extra].packages.values() if not _is_installed(module)]


def from_import_error(error: ImportError, user: str) -> BartError | None:
    """Convert a failed import to the error of `require`; None if no extra provides the module."""
    module = (error.name or "").partition(".")[0]
    extra = _extra_of(module)
    return _error(user, [extra], [module], None) if extra and not _is_installed(module) else None


def install_line(*extras: str) -> str:
    """Return the shell command that installs extras into the running environment.

    It names the clone of the repository if there is one, otherwise the individual packages.
    """
    pip = f"{shlex.quote(sys.executable)} -m pip install"
    if (CLONE / "pyproject.toml").is_file():
        names = ",".join(extras)
        return f"{pip} -e {shlex.quote(f'{CLONE}[{names}]')}"
    required = (line.partition(";") for line in importlib.metadata.requires("bart-cli") or [])
    wanted = dict.fromkeys(
        name.strip()
        for name, _, marker in required
        if any(f"extra == '{extra}'" in marker.replace('"', "'") for extra in extras)
    )
    return f"{pip} {shlex.join(wanted)}"


def _is_installed(module: str) -> bool:
    try:
        found = importlib.util.find_spec(module)
        return found is not None and found.origin is not None  # not a mere folder of that name
    except (ImportError, ValueError):
        return False


def _extra_of(module: str) -> str | None:
    return next((e for e, extra in EXTRAS.items() if module in extra.packages.values()), None)


def _error(user: str, extras: list[str], missing: list[str], otherwise: str | None) -> BartError:
    names = " and ".join(f"'{extra}'" for extra in extras)
    plural = "s" if len(extras) > 1 else ""
    return BartError(
        f"{user} needs the extra{plural} {names} (not installed): no module {', '.join(missing)}",
        hint=install_line(*extras) + (f"  (or {otherwise})" if otherwise else ""),
    )
