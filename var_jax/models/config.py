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


def require_count(what: str, name: str, value: Any) -> None:
    """Raises an InputError unless `value` is a positive integer."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{what} {name} is {value!r}: expected a positive integer")
