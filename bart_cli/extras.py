"""The extras of the package, and the error of a command that needs one.

In: the names of the modules that a command is about to import. Out: nothing, or a BartError with
the line that installs the extra they belong to.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from bart_cli.errors import BartError

CLONE = Path(__file__).parents[1]  # of the repository, where it holds a pyproject.toml


@dataclass(frozen=True)
class Extra:
    """What an extra is for, and its packages: distribution -> the module to import."""

    use: str
    packages: dict[str, str]


EXTRAS = {
    "data": Extra(
        "bart download, bart preprocess pretrain, data sets of the hub, web pages",
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
        "bart evaluate, validation by ROUGE, the final evaluation of bart finetune",
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
    "news": Extra(
        "bart download common-crawl --extractor news-please", {"news-please": "newsplease"}
    ),
}


def require(user: str, *extras: str, otherwise: str | None = None) -> None:
    """Check that extras are installed, before work begins that needs them.

    Args:
        user: the command, option or input that needs them.
        otherwise: how to do without, as an imperative; added to the hint.

    Raises:
        BartError: a module is missing; the hint is the line to type.
    """
    missing = [module for extra in extras for module in missing_modules(extra)]
    if missing:
        raise _error(user, missing, otherwise)


def missing_modules(extra: str) -> list[str]:
    """The modules of an extra that are not installed."""
    return [module for module in EXTRAS[extra].packages.values() if not _is_installed(module)]


def of_import_error(error: ImportError, user: str) -> BartError | None:
    """The same error for an import that failed; None when the module belongs to no extra."""
    module = (error.name or "").partition(".")[0]
    return _error(user, [module], None) if _extra_of(module) and not _is_installed(module) else None


def install_line(*extras: str) -> str:
    """The shell command that installs extras into the running environment.

    In a clone it names the clone; elsewhere the packages themselves, by their own names.
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


def _error(user: str, missing: list[str], otherwise: str | None) -> BartError:
    extras = list(dict.fromkeys(filter(None, map(_extra_of, missing))))
    names = " and ".join(f"'{extra}'" for extra in extras)
    plural = "s" if len(extras) > 1 else ""
    return BartError(
        f"{user} needs the extra{plural} {names} (not installed): no module {', '.join(missing)}",
        hint=install_line(*extras) + (f"  (or {otherwise})" if otherwise else ""),
    )
