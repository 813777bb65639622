"""Options that several sub-commands share, and help texts taken from the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel

from bart_cli.errors import UsageError


def complete_preset(incomplete: str) -> list[str]:
    """Names of presets for the shell's completion."""
    from bart_cli.config.presets import preset_names

    return [name for name in preset_names() if name.startswith(incomplete)]


PresetOption = Annotated[
    str | None,
    typer.Option(
        "--preset",
        help="Preset to start from; see `bart presets list`.",
        autocompletion=complete_preset,
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="YAML in the form of a preset, or a run's config.yaml."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any other setting: section.key=value; may be given many times."),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document instead of a table.")
]


def numbers(option: str, text: str | None) -> list[int]:
    """The value of an option such as `1,4,8`; empty when it was not given.

    Raises:
        UsageError: something that is no whole number above 0.
    """
    words = [word.strip() for word in (text or "").split(",") if word.strip()]
    if not all(word.isdigit() and int(word) > 0 for word in words):
        raise UsageError(f"{option} {text}: expected numbers above 0, as in 1,4,8")
    return [int(word) for word in words]


def field_help(section: type[BaseModel], name: str) -> str:
    """The description of a configuration field, as the help of the option that sets it."""
    text = section.model_fields[name].description
    assert text, f"{section.__name__}.{name} has no description"
    return text[0].upper() + text[1:] + "."
