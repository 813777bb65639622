"""Build a configuration from a preset, a configuration file and options.

A preset is a YAML file with `task` (pretrain, finetune or model), `description`, optionally
`extends` (the name of a preset or a list of names, later ones win), and the sections of the
configuration. Later sources override earlier ones: preset, configuration file, named options,
`--set`. Decoding settings start from those of the model, and the source of each is recorded.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from difflib import SequenceMatcher
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
from bart_cli.files import is_special, no_such

# libyaml's loader is seven times as fast.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
Tree = dict[str, Any]
Kind = TypeVar("Kind", bound=Section)

# Pairs of settings for the same number. A later layer overrides both; in a layer, the second wins.
EITHER = (
    ("training.max_steps", "training.epochs"),
    ("schedule.warmup_steps", "schedule.warmup_ratio"),
)


def preset_folder() -> Path:
    """Return the folder of the presets: in the installed package, or next to it in a checkout."""
    package = Path(bart_cli.__file__).parent
    inside = package / "presets"
    return inside if inside.is_dir() else package.parent / "presets"


@cache
def preset_names() -> tuple[str, ...]:
    """Return the names of all presets, sorted."""
    return tuple(sorted(path.stem for path in preset_folder().glob("*.yaml")))


def load_preset(name: str) -> Tree:
    """Read a preset, merged with the presets that it extends."""
    return _with_bases(_preset_file(name), seen=())


def preset_config(name: str) -> Section:
    """Validate a preset as a configuration of its task; a model preset as pre-training."""
    tree = load_preset(name)
    kind = FinetuneConfig if tree.get("task") == "finetune" else PretrainConfig
    return check_section(kind, _sections_for(kind, tree, f"preset '{name}'"), f"preset '{name}'")


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
        config_file: YAML in the form of a preset, or the `config.yaml` of a run.
        sets: `section.key=value`, with the value in YAML.
        options: `section.key` -> value of a named option; None: not given.
        saved: decoding settings of a model, which all others override.
        notify: called with a message for each decoding setting that had to be changed.
    """
    tree: Tree = {}
    layers = list(saved)
    origin = "options"
    files = {} if preset is None else {f"preset '{preset}'": _preset_file(preset)}
    files |= {} if config_file is None else {str(config_file): config_file}
    for origin, path in files.items():
        sections = _sections_for(kind, _with_bases(path, seen=()), origin)
        layers.append((origin, sections.get("generation", {})))
        _lay(tree, sections)
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
        try:
            _put(given, key.strip(), yaml.load(text, LOADER))
        except yaml.YAMLError:
            raise UsageError(f"--set {assignment}: the value is not valid YAML") from None
    layers.append(("options", given.get("generation", {})))
    _require_one_of_each(given)
    _lay(tree, given)
    if "generation" in kind.model_fields and all(isinstance(own, dict) for _, own in layers):
        tree["generation"], tree["generation_sources"], notices = resolve_generation(layers)
        if notify is not None:
            for notice in notices:
                notify(notice)
    if tree.get("init_from") is not None:
        _require_no_architecture(given)
    while True:
        try:
            return kind.model_validate(tree)
        except ValidationError as error:
            check_section(kind, before, origin)  # blame the preset or file if it is already invalid
            idle = [key for key in map(_idle_key, error.errors()) if key and not _has(given, key)]
            if not idle:
                raise _usage_error(kind, error, "options") from None
            for key in idle:  # options have made these settings of the preset or file ineffective
                _drop(tree, key)


def check_section(kind: type[Kind], values: Mapping[str, object], origin: str = "options") -> Kind:
    """Build a section from its values; the message of an error begins with `origin`."""
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        raise _usage_error(kind, error, origin) from None


def merge(base: Tree, other: Mapping[str, Any]) -> None:
    """Merge `other` into `base` in place, section by section; `other` wins."""
    for key, value in other.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            merge(base[key], value)
        else:
            base[key] = dict(value) if isinstance(value, Mapping) else value


def _lay(tree: Tree, layer: Mapping[str, Any]) -> None:
    """Merge a layer into the tree, and drop the counterparts (EITHER) of its settings."""
    stated = dict(flatten(layer))
    for pair in EITHER:
        for key, twin in (pair, pair[::-1]):
            if stated.get(key) is not None and stated.get(twin) is None and _has(tree, twin):
                _drop(tree, twin)
    merge(tree, layer)


def _require_one_of_each(given: Tree) -> None:
    """Raise a UsageError for options that set one number twice."""
    stated = dict(flatten(given))
    for pair in EITHER:
        if all(stated.get(key) is not None for key in pair):
            both = " and ".join(f"{key}={stated[key]}" for key in pair)
            raise UsageError(f"options: {both} set the same number", hint="Pass only one of them.")


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield (`section.key`, value) for every leaf, in order."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _preset_file(name: str) -> Path:
    path = preset_folder() / f"{name}.yaml"
    if name not in preset_names():
        near = did_you_mean(name, preset_names())
        hints = [*([near] if near else []), "Run `bart presets list` to see all."]
        raise UsageError(f"no preset '{name}'", hint=" ".join(hints))
    return path


def _with_bases(path: Path, seen: tuple[Path, ...]) -> Tree:
    if path in seen:
        raise UsageError(f"{path}: presets extend each other in a cycle")
    own = read_yaml(path)
    bases = own.pop("extends", [])
    tree: Tree = {}
    for base in [bases] if isinstance(bases, str) else bases:
        _lay(tree, _with_bases(_preset_file(base), (*seen, path)))
    _lay(tree, own)
    return tree


def read_yaml(path: Path) -> Tree:
    if is_special(path):
        raise no_such(path)
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), LOADER)
    except FileNotFoundError:
        raise UsageError(f"no such configuration file: {path}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where is not None else ""
        problem = getattr(error, "problem", None) or error
        raise UsageError(f"{path}{line}: not valid YAML: {problem}") from None
    if not isinstance(tree, dict):
        raise UsageError(f"{path}: expected sections such as 'training:', found {tree!r:.60}")
    return tree


def recorded_settings(folder: Path) -> Tree:
    """Read the config.yaml of a run or an evaluation; {} if FOLDER is neither."""
    try:
        return read_yaml(folder / "config.yaml")
    except UsageError:
        return {}


def _sections_for(kind: type[Section], tree: Tree, origin: str) -> Tree:
    """Return the sections of a preset that a task reads."""
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
    fitting.sort(key=lambda name: SequenceMatcher(None, origin, name).ratio(), reverse=True)
    raise UsageError(
        f"{origin} is for `bart {task}`, not for `bart {wanted}`",
        hint=f"Presets for {needed}: {', '.join(fitting[:6])} …" if fitting else None,
    )


def _put(tree: Tree, key: str, value: object) -> None:
    *sections, last = key.split(".")
    for section in sections:
        inner = tree.get(section)
        if not isinstance(inner, dict):
            inner = tree[section] = {}
        tree = inner
    tree[last] = value


def _check_key(kind: type[BaseModel], key: str) -> None:
    model: type[BaseModel] = kind
    names = key.split(".")
    for depth, name in enumerate(names):
        if name not in model.model_fields:
            known = [".".join([*names[:depth], field]) for field in model.model_fields]
            hint = _did_you_mean(kind, key) or f"Use one of: {', '.join(known)}."
            raise UsageError(f"unknown key '{key}'", hint=hint)
        inner = model.model_fields[name].annotation
        if depth + 1 < len(names):
            if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
                raise UsageError(
                    f"unknown key '{key}': '{'.'.join(names[: depth + 1])}' is a value"
                )
            model = inner


def _did_you_mean(kind: type[BaseModel], key: str) -> str | None:
    """Suggest a key of a similar name, in a similar section if there are several."""
    known = [other for other, _ in flatten(kind().model_dump(mode="json"))]
    alike = sorted(known, key=lambda other: SequenceMatcher(None, key, other).ratio())
    return did_you_mean(key, alike, lambda name: name.rpartition(".")[2])


def _require_no_architecture(given: Tree) -> None:
    """Raise UsageError for an option of the architecture, which `init_from` determines."""
    for key, value in flatten(given):
        section, _, name = key.partition(".")
        if section == "model" and name not in DROPOUTS:
            raise UsageError(
                f"{key}={value} has no effect with init_from: the architecture comes with the "
                "weights"
            )


def _usage_error(kind: type[BaseModel], error: ValidationError, origin: str) -> UsageError:
    lines = [_explain(kind, problem) for problem in error.errors()]
    head = f"{origin}: " if len(lines) == 1 else f"{origin} has {len(lines)} problems:\n  "
    return UsageError(head + "\n  ".join(dict.fromkeys(lines)))


def _idle_key(problem: Mapping[str, Any]) -> str | None:
    """Return the key of a setting that was rejected because it has no effect, else None."""
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
    """Format a validation error as one line: the key, its value, and the problem."""
    path = [str(part) for part in problem["loc"]]
    if problem["type"] == "extra_forbidden":
        hint = _did_you_mean(kind, ".".join(path))
        return f"unknown key '{'.'.join(path)}'" + (f" ({hint})" if hint else "")
    message = complaint(problem)
    key = ".".join(part for part in path if not part.startswith(("literal[", "bool", "function-")))
    if problem["type"] == "model_type":
        return f"{key}={problem['input']}: {key} is a section; set its keys, as in {key}.KEY=VALUE"
    if not key:
        return message
    if isinstance(problem["input"], dict):  # a section: name its settings by their full keys
        full = re.sub(r"(?<![\w.])([a-z]\w*)=", rf"{key}.\1=", message)
        return full if full.startswith(f"{key}.") else f"{key}: {full}"
    return f"{key}={problem['input']}: {message}"
