"""The base of every configuration section: frozen, and strict about unknown keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A frozen group of settings. An unknown key or an impossible value is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )


def complaint(problem: Mapping[str, Any]) -> str:
    """What a validation error says is wrong, to stand behind a key."""
    message: str = problem["msg"].removeprefix("Value error, ")
    return message[0].lower() + message[1:]
