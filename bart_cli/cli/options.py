"""Options that several sub-commands share, and help texts taken from the configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from pydantic import BaseModel

from bart_cli.config.base import Section
from bart_cli.config.data import SummarizationDataConfig
from bart_cli.config.generation import Layer
from bart_cli.errors import UsageError

Config = TypeVar("Config", bound=Section)


def complete_preset(incomplete: str) -> list[str]:
    """Names of presets for the shell's completion."""
    from bart_cli.config.presets import preset_names

    return [name for name in preset_names() if name.startswith(incomplete)]


SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Set any setting: section.key=value; repeatable."),
]
CheckpointOption = Annotated[
    str | None,
    typer.Option(
        metavar="last|best|STEP",
        help="Checkpoint of a run to use. Default: best if the run has validated, else last.",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print a JSON document instead of a table.")
]


def field_help(section: type[BaseModel], name: str) -> str:
    """The description of a configuration field, as the help of the option that sets it."""
    text = section.model_fields[name].description
    assert text, f"{section.__name__}.{name} has no description"
    return text[0].upper() + text[1:] + "."


@dataclass(frozen=True)
class ConfigOptions:
    """Where the settings of a run come from."""

    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            help="Preset to start from; see `bart presets list`.",
            autocompletion=complete_preset,
        ),
    ] = None
    config_file: Annotated[
        Path | None,
        typer.Option("--config", help="YAML file with settings, such as a run's config.yaml."),
    ] = None
    sets: SetOption = None

    @property
    def name(self) -> str | None:
        """The preset's name, or that of the file; None: neither was given."""
        return self.preset or (self.config_file.stem if self.config_file else None)

    def or_file(self, path: Path) -> ConfigOptions:
        """These, with a file where neither preset nor file was given."""
        return self if self.name else replace(self, config_file=path)

    def default_run(self, task: str) -> Path:
        """runs/TASK-NAME, or runs/TASK."""
        return Path("runs") / (f"{task}-{self.name}" if self.name else task)

    def load(
        self,
        kind: type[Config],
        options: Mapping[str, object],
        *,
        saved: Sequence[Layer] = (),
        notify: Callable[[str], None] | None = None,
    ) -> Config:
        """The configuration; `options` by key, None where an option was not given.

        `saved` and `notify` as in `load_config`.

        Raises:
            UsageError: names the setting, its value, and what is allowed.
        """
        from bart_cli.config.presets import load_config

        return load_config(
            kind,
            preset=self.preset,
            config_file=self.config_file,
            sets=self.sets or [],
            options=options,
            saved=saved,
            notify=notify,
        )


SourceFieldOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help=field_help(SummarizationDataConfig, "source_field")),
]
TargetFieldOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help=field_help(SummarizationDataConfig, "target_field")),
]


@dataclass(frozen=True)
class PairOptions:
    """How pairs are read, beside their place."""

    source_field: SourceFieldOption = None
    target_field: TargetFieldOption = None
    list_targets: Annotated[
        str | None,
        typer.Option(
            metavar="sentences|references",
            help=field_help(SummarizationDataConfig, "list_targets"),
        ),
    ] = None
    validation_share: Annotated[
        float | None, typer.Option(help=field_help(SummarizationDataConfig, "validation_share"))
    ] = None
    test_share: Annotated[
        float | None, typer.Option(help=field_help(SummarizationDataConfig, "test_share"))
    ] = None

    def settings(self) -> dict[str, object]:
        """Keys of SummarizationDataConfig; None where an option was not given."""
        return asdict(self)


def numbers(option: str, text: str | None) -> list[int]:
    """The value of an option such as `1,4,8`; empty when it was not given.

    Raises:
        UsageError: something that is no whole number above 0.
    """
    words = [word.strip() for word in (text or "").split(",") if word.strip()]
    if not all(word.isdigit() and int(word) > 0 for word in words):
        raise UsageError(f"{option} {text}: expected positive numbers such as 1,4,8")
    return [int(word) for word in words]
