"""The base class of configuration sections: frozen, and strict about unknown keys."""

from collections.abc import Iterable, Mapping
from functools import reduce
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

IDLE = "no_effect"  # type of the validation error for a setting without effect


class Section(BaseModel):
    """A frozen group of settings. Unknown keys and invalid values are errors."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )


def entry(default: Any, text: str, **limits: Any) -> Any:
    """Return a setting, described by `text`, which is also the help text of its option."""
    return Field(default, description=text, **limits)


def refuse_idle(section: Section, names: Iterable[str], condition: str) -> None:
    """Reject settings that differ from the default although they have no effect.

    Args:
        names: fields of the section, or dotted names of nested fields.
        condition: when they have no effect, such as "mask_ratio=0".

    Raises:
        PydanticCustomError: for the first of them; its name is in `ctx["name"]`.
    """
    for name in names:
        *path, field = name.split(".")
        owner: Section = reduce(getattr, path, section)
        value = getattr(owner, field)
        if value != type(owner).model_fields[field].default:
            raise PydanticCustomError(
                IDLE,
                "{name}={value} has no effect with {condition}",
                {"name": name, "value": str(value), "condition": condition},
            )


def complaint(problem: Mapping[str, Any]) -> str:
    """Return the message of a validation error, to be appended to a key."""
    message: str = problem["msg"].removeprefix("Value error, ")
    return message[0].lower() + message[1:]
