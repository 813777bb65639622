"""Groups of options that several commands share.

A group is a frozen dataclass whose fields are options. A command declares the group as one
parameter. `option_groups` replaces it by the options for Typer, and passes the filled group to the
command.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Any, get_type_hints


def option_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Wrap a command so that the fields of its groups become its parameters."""
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

    def fill(values: dict[str, Any]) -> dict[str, Any]:
        """Convert values by option to values by parameter of the command."""
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        return values

    @wraps(command)
    def with_groups(**values: Any) -> None:
        command(**fill(values))

    with_groups.fill = fill  # type: ignore[attr-defined]

    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    with_groups.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_groups.__annotations__ = {p.name: p.annotation for p in parameters}
    return with_groups
