"""Shared by the models' config dataclasses: checks, and building one from plain values."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Set
from typing import Any

from var_jax.errors import InputError


def config_from_dict(cls: type, values: dict[str, Any], what: str) -> Any:
    """Builds the frozen dataclass `cls` from plain values.

    Raises:
      InputError: naming an unknown or missing field.
    """
    check_fields(values, {field.name for field in dataclasses.fields(cls)}, what)
    return cls(**values)


def check_fields(values: Iterable[str], known: Set[str], what: str, complete: bool = True) -> None:
    """Raises an InputError naming a field of `values` that is not known, or (if `complete`) one that is missing."""
    if unknown := sorted(set(values) - known):
        raise InputError(f"{what} config has the unknown field '{unknown[0]}': known are {', '.join(sorted(known))}")
    if complete and (missing := sorted(known - set(values))):
        raise InputError(f"{what} config lacks the field '{missing[0]}'")


def require_count(what: str, name: str, value: Any, most: int = 2**24) -> None:
    """Raises an InputError unless `value` is a positive integer, of at most `most`: more would fill any memory."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{what} {name} is {_shown(value)}: expected a positive integer")
    if value > most:
        raise InputError(f"{what} {name} is {_shown(value)}: expected at most {most}")


def require_number(what: str, name: str, value: Any, low: float = -1e6, high: float = 1e6) -> None:
    """Raises an InputError unless `value` is a number from `low` to `high`."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
        raise InputError(f"{what} {name} is {_shown(value)}: expected a number from {low:g} to {high:g}")


def require_switch(what: str, name: str, value: Any) -> None:
    """Raises an InputError unless `value` is True or False."""
    if not isinstance(value, bool):
        raise InputError(f"{what} {name} is {_shown(value)}: expected true or false")


def _shown(value: Any) -> str:
    return ascii(value)[:60]
