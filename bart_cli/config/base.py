"""The base of every configuration section: frozen, and strict about unknown keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

IDLE = "no_effect"  # type of the validation error of a setting without effect


class Section(BaseModel):
    """A frozen group of settings. An unknown key or an impossible value is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )


def refuse_idle(section: Section, names: Iterable[str], condition: str) -> None:
    """Refuse settings that were changed although they have no effect under this condition.

    Args:
        names: fields of the section, or dotted names of fields further inside.

    Raises:
        PydanticCustomError: names the first of them (`ctx["name"]`).
    """
    for name in names:
        *path, field = name.split(".")
        owner: Section = reduce(getattr, path, section)
        value = getattr(owner, field)
        if value != type(owner).model_fields[field].default:
            raise PydanticCustomError(
                IDLE,
                "{name}={value} has no effect with {condition}",
                {"name": name, "value": value, "condition": condition},
            )


def complaint(problem: Mapping[str, Any]) -> str:
    """What a validation error says is wrong, to stand behind a key."""
    message: str = problem["msg"].removeprefix("Value error, ")
    return message[0].lower() + message[1:]
