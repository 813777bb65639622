"""From a preset's name, a file and options to one frozen configuration.

A preset is a YAML file: `task` (pretrain, finetune or model), `description`, optionally `extends`
(a preset's name or a list of them, later ones win), then the sections of the configuration.
Values are taken in the order preset, configuration file, named options, `--set`; the last wins. Of
decoding settings those of a model come first, and where each came from is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

import bart_cli
from bart_cli.config.base import IDLE, Section, complaint
from bart_cli.config.generation import Layer, resolve_generation
from bart_cli.config.model import DROPOUTS
from bart_cli.config.run import FinetuneConfig, PretrainConfig
from bart_cli.errors import UsageError, did_you_mean

Tree = dict[str, Any]
Kind = TypeVar("Kind", bound=Section)

TASKS = ("pretrain", "finetune", "model")


def preset_folder() -> Path:
    """Where the presets lie: inside the installed package, or beside it in a checkout."""
    package = Path(bart_cli.__file__).parent
    inside = package / "presets"
    return inside if inside.is_dir() else package.parent / "presets"


@cache
def preset_names() -> tuple[str, ...]:
    """Names of all presets, sorted."""
    return tuple(sorted(path.stem for path in preset_folder().glob("*.yaml")))


def load_preset(name: str) -> Tree:
    """The preset as one tree, everything that it extends merged in.

    Raises:
        UsageError: there is no such preset, or presets extend each other in a cycle.
    """
    return _with_bases(_preset_file(name), seen=())


def preset_config(name: str) -> Section:
    """The preset as the frozen configuration of its task; a model preset as pre-training."""
    tree = load_preset(name)
    kind = FinetuneConfig if tree.get("task") == "finetune" else PretrainConfig
    return _validate(kind, _sections_for(kind, tree, f"preset '{name}'"), f"preset '{name}'")


def load_config(
    kind: type[Kind],
    *,
    preset: str | None = None,
    config_file: Path | None = None,
    sets: Sequence[str] = (),
    options: Mapping[str, object] | None = None,
    saved: Sequence[Layer] = (),
    notify: Callable[[str], None] | None = None,
) -> Kind:
    """Build the configuration of a task.

    Args:
        kind: which task.
        preset: name of a preset.
        config_file: YAML in the form of a preset, or a run's `config.yaml`.
        sets: `section.key=value`, value in YAML.
        options: `section.key` -> value of a named option; None means not given.
        saved: decoding settings of a model, which come before all others.
        notify: is told about a decoding setting that had to be changed.

    Raises:
        UsageError: an unknown preset or key, a value that is not allowed, a file that is no YAML;
            the message names each key with its value and what is allowed.
    """
    tree: Tree = {}
    layers = list(saved)
    origin = "options"
    if preset is not None:
        origin = f"preset '{preset}'"
        sections = _sections_for(kind, load_preset(preset), origin)
        layers.append((origin, sections.get("generation", {})))
        merge(tree, sections)
    if config_file is not None:
        origin = str(config_file)
        sections = _sections_for(kind, _with_bases(config_file, seen=()), origin)
        layers.append((origin, sections.get("generation", {})))
        merge(tree, sections)
    before = deepcopy(tree)
    given: Tree = {}
    for key, value in (options or {}).items():
        if value is not None:
            _put(given, key, value)
    for assignment in sets:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--set {assignment}: expected section.key=value")
        _check_key(kind, key.strip())
        _put(given, key.strip(), _parse_value(text, assignment))
    layers.append(("options", given.get("generation", {})))
    merge(tree, given)
    if "generation" in kind.model_fields and all(isinstance(own, dict) for _, own in layers):
        resolved = resolve_generation(layers)
        tree["generation"], tree["generation_sources"] = resolved.values, resolved.sources
        if notify is not None:
            for notice in resolved.notices:
                notify(notice)
    if tree.get("init_from") is not None:
        _require_no_architecture(given)
    while True:
        try:
            return kind.model_validate(tree)
        except ValidationError as error:
            _validate(kind, before, origin)  # what is wrong without the options is not theirs
            idle = [key for key in map(_idle_key, error.errors()) if key and not _has(given, key)]
            if not idle:
                raise _usage_error(kind, error, "options") from None
            for key in idle:  # an option takes away the meaning of a preset's setting
                _drop(tree, key)


def check_section(kind: type[Kind], values: Mapping[str, object]) -> Kind:
    """A section on its own, from the values of named options.

    Raises:
        UsageError: a value that is not allowed.
    """
    return _validate(kind, dict(values), "options")


def merge(base: Tree, other: Mapping[str, Any]) -> None:
    """Lay `other` over `base`, section by section, in place."""
    for key, value in other.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            merge(base[key], value)
        else:
            base[key] = dict(value) if isinstance(value, Mapping) else value


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    """`section.key`, value of every leaf, in order."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _preset_file(name: str) -> Path:
    path = preset_folder() / f"{name}.yaml"
    if name not in preset_names():
        hint = did_you_mean(name, preset_names())
        raise UsageError(
            f"no preset '{name}'",
            hint=f"{hint}Run `bart presets list` to see all."
            if hint
            else "Run `bart presets list` to see all.",
        )
    return path


def _with_bases(path: Path, seen: tuple[Path, ...]) -> Tree:
    if path in seen:
        raise UsageError(f"{path}: presets extend each other in a cycle")
    own = read_yaml(path)
    bases = own.pop("extends", [])
    tree: Tree = {}
    for base in [bases] if isinstance(bases, str) else bases:
        merge(tree, _with_bases(_preset_file(base), (*seen, path)))
    merge(tree, own)
    return tree


def read_yaml(path: Path) -> Tree:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"no such configuration file: {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where is not None else ""
        problem = getattr(error, "problem", None) or error
        raise UsageError(f"{path}{line}: not valid YAML: {problem}") from None
    if not isinstance(tree, dict):
        raise UsageError(f"{path}: expected sections such as 'training:', found {tree!r:.60}")
    return tree


def _sections_for(kind: type[Section], tree: Tree, origin: str) -> Tree:
    """The part of a preset that a task reads."""
    wanted = kind.model_fields["task"].default
    task = tree.get("task", wanted)
    rest = {key: value for key, value in tree.items() if key != "task"}
    if task == wanted:
        return rest
    if task == "model":
        if wanted == "evaluate":
            raise UsageError(f"{origin} describes a model only; evaluation needs a finetune preset")
        return {"model": rest.get("model", {})}
    if task == "finetune" and wanted == "evaluate":
        return {key: value for key, value in rest.items() if key in kind.model_fields}
    needed = "finetune" if wanted == "evaluate" else wanted
    fitting = [name for name in preset_names() if load_preset(name).get("task") == needed]
    raise UsageError(
        f"{origin} is for `bart {task}`, not for `bart {wanted}`",
        hint=f"Presets for {needed}: {', '.join(fitting[:6])} …" if fitting else None,
    )


def _parse_value(text: str, assignment: str) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise UsageError(f"--set {assignment}: the value is not valid YAML") from None


def _put(tree: Tree, key: str, value: object) -> None:
    *sections, last = key.split(".")
    for section in sections:
        inner = tree.get(section)
        if not isinstance(inner, dict):
            inner = tree[section] = {}
        tree = inner
    tree[last] = value


def _check_key(kind: type[BaseModel], key: str) -> None:
    """Raise for a key that the configuration does not have."""
    model: type[BaseModel] = kind
    names = key.split(".")
    for depth, name in enumerate(names):
        if name not in model.model_fields:
            known = [
                f"{'.'.join(names[:depth])}.{field}".lstrip(".") for field in model.model_fields
            ]
            everywhere = [known_key for known_key, _ in flatten(_defaults(kind))]
            hint = did_you_mean(key, everywhere) or f"known here: {', '.join(known)}"
            raise UsageError(f"unknown key '{key}'", hint=hint)
        inner = model.model_fields[name].annotation
        if depth + 1 < len(names):
            if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
                raise UsageError(
                    f"unknown key '{key}': '{'.'.join(names[: depth + 1])}' is a value"
                )
            model = inner


def _require_no_architecture(given: Tree) -> None:
    """Raise for an option about the architecture, which comes with the weights of `init_from`."""
    for key, value in flatten(given):
        section, _, name = key.partition(".")
        if section == "model" and name not in DROPOUTS:
            raise UsageError(
                f"{key}={value} has no effect with init_from: the architecture comes with the "
                "weights"
            )


def _defaults(kind: type[BaseModel]) -> Tree:
    return kind().model_dump(mode="json")


def _validate(kind: type[Kind], tree: Tree, origin: str) -> Kind:
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise _usage_error(kind, error, origin) from None


def _usage_error(kind: type[BaseModel], error: ValidationError, origin: str) -> UsageError:
    lines = [_explain(kind, problem) for problem in error.errors()]
    head = f"{origin}: " if len(lines) == 1 else f"{origin} has {len(lines)} problems:\n  "
    return UsageError(head + "\n  ".join(dict.fromkeys(lines)))


def _idle_key(problem: Mapping[str, Any]) -> str | None:
    """The key of a setting that was refused because it has no effect."""
    if problem["type"] != IDLE:
        return None
    return ".".join([*map(str, problem["loc"]), problem["ctx"]["name"]])


def _has(tree: Tree, key: str) -> bool:
    return key in dict(flatten(tree))


def _drop(tree: Tree, key: str) -> None:
    *sections, last = key.split(".")
    for section in sections:
        tree = tree[section]
    del tree[last]


def _explain(kind: type[BaseModel], problem: Mapping[str, Any]) -> str:
    """One line of a validation error: the key, what is wrong, what came, what is allowed."""
    path = [str(part) for part in problem["loc"]]
    if problem["type"] == "extra_forbidden":
        hint = did_you_mean(".".join(path), [key for key, _ in flatten(_defaults(kind))])
        return f"unknown key '{'.'.join(path)}'" + (f" ({hint})" if hint else "")
    message = complaint(problem)
    key = ".".join(part for part in path if not part.startswith(("literal[", "bool", "function-")))
    if isinstance(problem["input"], dict) or not key:
        return f"{key}: {message}" if key else message
    return f"{key}={problem['input']}: {message}"
