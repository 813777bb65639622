"""Optional dependencies (extras), and the error if a command needs one that is not installed.

In: the extras or modules that a command needs. Out: a BartError whose hint is the command that
installs the missing extras.
"""

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
    """The purpose of an extra, and its packages."""

    use: str
    packages: list[str]


DATA = "datasets dask requests fastwarc resiliparse trafilatura webencodings brotli lxml_html_clean"
EXTRAS = {
    "data": Extra(
        "bart download, bart preprocess pretrain, data sets on the hub, web pages", DATA.split()
    ),
    "eval": Extra(
        "bart evaluate, validation with ROUGE, the final evaluation of bart finetune",
        ["rouge-score", "sacrebleu"],
    ),
    "serve": Extra(
        "bart serve, Word and PDF files",
        ["starlette", "uvicorn", "prometheus-client", "pypdf", "python-docx"],
    ),
    "bertscore": Extra("evaluation.metrics=bertscore", ["transformers"]),
    "wandb": Extra("training.loggers=wandb", ["wandb"]),
    "mlflow": Extra("training.loggers=mlflow", ["mlflow-skinny", "sqlalchemy", "alembic"]),
    "trackio": Extra("training.loggers=trackio", ["trackio"]),
    "ctranslate2": Extra("bart export --format ctranslate2", ["ctranslate2", "transformers"]),
    "onnx": Extra("bart export --format onnx", ["onnx", "onnxscript", "onnxruntime"]),
    "news": Extra("bart download common-crawl --extractor news-please", ["news-please"]),
}
MODULES = {  # of packages whose module has another name
    "dask": "distributed",
    "python-docx": "docx",
    "mlflow-skinny": "mlflow",
    "news-please": "newsplease",
}


def require(user: str, *extras: str, otherwise: str | None = None) -> None:
    """Check that extras are installed, before starting work that needs them.

    Args:
        user: the command, option or input that needs them.
        otherwise: an alternative, as an imperative; added to the hint.
    """
    missing = {extra: [m for m in _modules(extra) if not _is_installed(m)] for extra in extras}
    lacking = [extra for extra in extras if missing[extra]]
    if lacking:
        raise _error(user, lacking, [m for extra in lacking for m in missing[extra]], otherwise)


def from_import_error(error: ImportError, user: str) -> BartError | None:
    """Convert a failed import to the error of `require`; None if no extra provides the module."""
    module = (error.name or "").partition(".")[0]
    extra = next((extra for extra in EXTRAS if module in _modules(extra)), None)
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


def _modules(extra: str) -> list[str]:
    return [MODULES.get(name, name.replace("-", "_")) for name in EXTRAS[extra].packages]


def _is_installed(module: str) -> bool:
    try:
        found = importlib.util.find_spec(module)
        return found is not None and found.origin is not None  # not a mere folder of that name
    except (ImportError, ValueError):
        return False


def _error(user: str, extras: list[str], missing: list[str], otherwise: str | None) -> BartError:
    names = " and ".join(f"'{extra}'" for extra in extras)
    plural = "s" if len(extras) > 1 else ""
    return BartError(
        f"{user} needs the extra{plural} {names} (not installed): no module {', '.join(missing)}",
        hint=install_line(*extras) + (f"  (or {otherwise})" if otherwise else ""),
    )
