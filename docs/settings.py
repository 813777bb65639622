"""Write docs/settings.md: every setting with its type, range, default and meaning.

    python docs/settings.py

The page is generated from the models in `bart_cli/config/`; a test fails if it is out of date.
"""

from __future__ import annotations

from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from bart_cli.config.base import Section
from bart_cli.config.commands import BenchmarkConfig, ExportConfig, ServeConfig, SummarizeConfig
from bart_cli.config.run import EvaluateConfig, FinetuneConfig, PretrainConfig

PAGE = Path(__file__).with_suffix(".md")
HEAD = """# Settings

Generated from `bart_cli/config/` by `make settings`. Set a value with `--set section.key=value`, in
a preset, or in a file passed to `--config`; [presets.md](presets.md#how-a-setting-is-found) gives
the order. `bart presets show NAME` prints all settings of a preset.
"""
RUNS = (("pretrain", PretrainConfig), ("finetune", FinetuneConfig), ("evaluate", EvaluateConfig))
# Sections of a single command, whose settings are its options.
COMMANDS = (
    ("summarize", SummarizeConfig),
    ("serve", ServeConfig),
    ("export", ExportConfig),
    ("benchmark", BenchmarkConfig),
)


def page() -> str:
    """Return the text of the page."""
    parts = [HEAD]
    top: dict[str, tuple[FieldInfo, list[str]]] = {}
    sections: dict[tuple[str, type[Section]], list[str]] = {}
    for command, config in RUNS:
        for name, field in config.model_fields.items():
            kind = field.annotation
            if isinstance(kind, type) and issubclass(kind, Section):
                sections.setdefault((name, kind), []).append(command)
            elif name != "task":
                top.setdefault(name, (field, []))[1].append(command)
    parts.append("\n## Top level\n")
    parts += table([(name, field, used) for name, (field, used) in top.items()])
    for (name, section), used in sections.items():
        title = f"\n## `{name}`" + (f" of {join(used)}" if len(used) < len(RUNS) else "")
        parts += [f"{title}\n", *rows(section)]
    for command, section in COMMANDS:
        parts += [f"\n## Options of `bart {command}`\n", *rows(section)]
    return "\n".join(parts) + "\n"


def rows(section: type[Section]) -> list[str]:
    """Return the table of a section."""
    return table([(name, field, []) for name, field in section.model_fields.items()])


def table(fields: list[tuple[str, FieldInfo, list[str]]]) -> list[str]:
    """Return a table of fields; commands, if any, are appended to the meaning."""
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, field, used in fields:
        meaning = (field.description or "").replace("|", "\\|")
        commands = f" ({join(used)})" if 0 < len(used) < len(RUNS) else ""
        default = "" if field.default is None else f"`{plain(field.default)}`"
        lines.append(f"| `{name}` | {kind_of(field)} | {default} | {meaning}{commands} |")
    return lines


def kind_of(field: FieldInfo) -> str:
    """Return the type and the range of a field."""
    bounds = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    limits = [
        f"{sign} {plain(getattr(rule, name))}"
        for rule in field.metadata
        for name, sign in bounds.items()
        if getattr(rule, name, None) is not None
    ]
    return ", ".join([spell(field.annotation), *limits])


def spell(kind: Any) -> str:
    """Format a type for readers: `Literal["a", "b"] | None` is "a, b"."""
    origin, arguments = get_origin(kind), [a for a in get_args(kind) if a is not NoneType]
    if origin is Annotated:
        return spell(arguments[0])
    if origin is Literal:
        return ", ".join(str(value) for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join(spell(argument) for argument in arguments)
    if origin is tuple:
        inner = [spell(argument) for argument in arguments if argument is not ...]
        return f"list of {inner[0]}" if ... in arguments else f"[{', '.join(inner)}]"
    if origin is dict:
        return "mapping"
    return {"str": "text", "bool": "true or false", "Path": "path"}.get(
        kind.__name__, kind.__name__
    )


def plain(value: Any) -> str:
    """Format a value as YAML, but large powers of two as powers."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value >= 2**20 and value & (value - 1) == 0:
        return f"2^{value.bit_length() - 1}"
    if isinstance(value, float):
        return f"{value:g}"
    return str(list(value)) if isinstance(value, tuple) else str(value) or '""'


def join(words: list[str]) -> str:
    """Join words with commas and "and"."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
