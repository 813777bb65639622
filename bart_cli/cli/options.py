"""Options shared by several sub-commands, and help texts from the configuration."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial, wraps
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import typer
from pydantic import BaseModel

from bart_cli.config.base import Section
from bart_cli.config.data import SummarizationDataConfig
from bart_cli.config.generation import EvaluationConfig, Layer
from bart_cli.config.presets import load_config, load_preset, preset_names, read_yaml
from bart_cli.config.run import EvaluateConfig, FinetuneConfig, PretrainConfig
from bart_cli.errors import UsageError

Config = TypeVar("Config", bound=Section)
# Section of a run's configuration -> its name, which begins the keys of its settings.
SECTIONS = {
    field.annotation: name
    for kind in (PretrainConfig, FinetuneConfig, EvaluateConfig)
    for name, field in kind.model_fields.items()
}


def complete_preset(incomplete: str) -> list[str]:
    """Return names of presets for shell completion."""
    return [name for name in preset_names() if name.startswith(incomplete)]


def option(text: str, *names: str, **more: Any) -> Any:
    """Return an option with this help text; default name: that of its parameter."""
    return typer.Option(*names, help=text, **more)


SetOption = Annotated[
    list[str] | None, option("Set any setting: section.key=value; repeatable.", "--set")
]
OutOption = Annotated[Path, option("Output folder.", "--out")]
CheckpointOption = Annotated[
    str | None,
    option(
        "Checkpoint of a run to use. Default: best if the run was validated, else last.",
        metavar="last|best|STEP",
    ),
]
JsonOption = Annotated[bool, option("Print a JSON document instead of a table.", "--json")]


def setting(section: type[BaseModel], name: str, *names: str, metavar: str | None = None) -> Any:
    """Return the option of a configuration field: its help, its choices, and its key for `keys`."""
    kind = section.model_fields[name].annotation
    for part in (kind, *get_args(kind)):
        if metavar is None and get_origin(part) is Literal:
            metavar = "|".join(map(str, get_args(part)))
    text = section.model_fields[name].description
    assert text, f"{section.__name__}.{name} has no description"
    text = re.sub("; null: [^;]+", "", text)  # a value in files, and the default of the option
    found = option(text[0].upper() + text[1:] + ".", *names, metavar=metavar)
    found.key = f"{SECTIONS[section]}.{name}" if section in SECTIONS else name
    return found


def keys(options: Any) -> dict[str, object]:
    """Return the values of a group's options by configuration key; None means not given."""
    hints = get_type_hints(type(options), include_extras=True)
    return {
        note.key: getattr(options, field.name)
        for field in fields(options)
        for note in getattr(hints[field.name], "__metadata__", ())
        if hasattr(note, "key")
    }


@dataclass(frozen=True)
class ConfigOptions:
    """Sources of the settings of a run."""

    preset: Annotated[
        str | None,
        option("Preset to start from; see `bart presets list`.", autocompletion=complete_preset),
    ] = None
    config_file: Annotated[
        Path | None, option("YAML file with settings, such as a run's config.yaml.", "--config")
    ] = None
    sets: SetOption = None

    @property
    def name(self) -> str | None:
        """Name of the preset or the configuration file; None if neither is given."""
        return self.preset or (self.config_file.stem if self.config_file else None)

    def task(self) -> str:
        """Return the task of the preset or the configuration file; empty if none is stated."""
        if self.preset is not None:
            return str(load_preset(self.preset).get("task", ""))
        return str(read_yaml(self.config_file).get("task", "")) if self.config_file else ""

    def or_file(self, path: Path) -> ConfigOptions:
        """Return these options, with the file `path` if neither preset nor file is given."""
        return self if self.name else replace(self, config_file=path)

    def default_run(self, task: str) -> Path:
        """Return runs/TASK-NAME, or runs/TASK without a name."""
        return Path("runs") / (f"{task}-{self.name}" if self.name else task)

    def load(
        self,
        kind: type[Config],
        options: Mapping[str, object],
        *,
        saved: Sequence[Layer] = (),
        notify: Callable[[str], None] | None = None,
    ) -> Config:
        """Load the configuration from these sources and the options by key; see `load_config`."""
        return load_config(
            kind,
            preset=self.preset,
            config_file=self.config_file,
            sets=self.sets or [],
            options=options,
            saved=saved,
            notify=notify,
        )


pair_setting = partial(setting, SummarizationDataConfig)
SourceFieldOption = Annotated[str | None, pair_setting("source_field", metavar="NAME")]
TargetFieldOption = Annotated[str | None, pair_setting("target_field", metavar="NAME")]
SourceLanguageOption = Annotated[str | None, pair_setting("source_language", metavar="CODE")]
TargetLanguageOption = Annotated[str | None, pair_setting("target_language", metavar="CODE")]


@dataclass(frozen=True)
class PairOptions:
    """How to read pairs; without the option for their path."""

    source_field: SourceFieldOption = None
    target_field: TargetFieldOption = None
    list_targets: Annotated[str | None, pair_setting("list_targets")] = None
    validation_share: Annotated[float | None, pair_setting("validation_share")] = None
    test_share: Annotated[float | None, pair_setting("test_share")] = None


@dataclass(frozen=True)
class ScoringOptions:
    """Pairs to score, and how."""

    split: Annotated[str | None, setting(EvaluationConfig, "split")] = None
    limit: Annotated[int | None, setting(EvaluationConfig, "limit")] = None
    bleu: Annotated[bool | None, setting(EvaluationConfig, "bleu", "--bleu")] = None
    rouge_tokenizer: Annotated[str | None, setting(EvaluationConfig, "tokenizer")] = None


def words(text: str | None) -> list[str]:
    """Split the value of an option such as `a,b,c`; empty if it was not given."""
    return [word.strip() for word in (text or "").split(",") if word.strip()]


def numbers(option: str, text: str | None) -> list[int]:
    """Parse the value of an option such as `1,4,8`; empty if it was not given."""
    found = words(text)
    if not all(word.isdigit() and int(word) > 0 for word in found):
        raise UsageError(f"{option} {text}: expected positive integers such as 1,4,8")
    return [int(word) for word in found]


def _settable(message: str, flags: Mapping[str, str]) -> str | None:
    """Return a hint with the options (`flags`, by key) of settings that contradict each other."""
    named = dict.fromkeys(re.findall(r"(?<![\w.])(\w+\.\w+)=", message))
    if len(named) < 2:
        return None
    return f"Change {' or '.join(flags.get(key, f'--set {key}=…') for key in named)}."


def option_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Wrap a command so that the fields of its groups become its parameters.

    A group is a frozen dataclass whose fields are options that several commands share. A command
    declares the group as one parameter and receives the filled group.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type] = {}
    parameters = []
    for name, given in inspect.signature(command).parameters.items():
        if is_dataclass(hints[name]):
            group = groups[name] = hints[name]
            options = get_type_hints(group, include_extras=True)
            parameters += [
                given.replace(
                    name=field.name, default=field.default, annotation=options[field.name]
                )
                for field in fields(group)
            ]
        else:
            parameters.append(given.replace(annotation=hints[name]))

    flags = {
        note.key: next(iter(note.param_decls), f"--{parameter.name.replace('_', '-')}")
        for parameter in parameters
        for note in getattr(parameter.annotation, "__metadata__", ())
        if hasattr(note, "key")
    }

    def fill(values: dict[str, Any]) -> dict[str, Any]:
        """Convert values by option to values by parameter of the command."""
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        return values

    @wraps(command)
    def with_groups(**values: Any) -> None:
        try:
            command(**fill(values))
        except UsageError as error:
            error.hint = error.hint or _settable(error.message, flags)
            raise

    with_groups.fill = fill  # type: ignore[attr-defined]

    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    with_groups.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_groups.__annotations__ = {p.name: p.annotation for p in parameters}
    return with_groups
