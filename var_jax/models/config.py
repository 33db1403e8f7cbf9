"""Shared by the models' config dataclasses: checks, and building one from plain values."""

from __future__ import annotations

import dataclasses
from typing import Any

from var_jax.errors import InputError


def config_from_dict(cls: type, values: dict[str, Any], what: str) -> Any:
    """Builds the frozen dataclass `cls` from plain values.

    Raises:
      InputError: naming an unknown or missing field.
    """
    known = {field.name for field in dataclasses.fields(cls)}
    if unknown := sorted(set(values) - known):
        raise InputError(f"{what} config has the unknown field '{unknown[0]}': known are {', '.join(sorted(known))}")
    if missing := sorted(known - set(values)):
        raise InputError(f"{what} config lacks the field '{missing[0]}'")
    return cls(**values)


def require_count(what: str, name: str, value: Any) -> None:
    """Raises an InputError unless `value` is a positive integer."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{what} {name} is {value!r}: expected a positive integer")
