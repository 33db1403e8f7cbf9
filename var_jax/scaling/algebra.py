"""A small algebra over config keys: lists of points, each a set of changes to one config.

    product(axis("model.depth", 6, 8), axis("seed", 0, 1))                    four points
    zipped(axis("model.depth", 6, 8), axis("optimizer.final", 0.1, 0.01))     two points, key by key
    chain(product(...), [{"model.depth": 30}])                                one list after another
    filtered(points, lambda point: point["model.depth"] < 20)                 some of them

Data only: configs import it.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from var_jax.errors import InputError

Point = dict[str, Any]
NAME = "name"  # of a point's run; every other entry is a key of the config


def axis(key: str, *values: Any) -> list[Point]:
    """Points for the values of one key."""
    return [{key: value} for value in values]


def product(*sweeps: Sequence[Point]) -> list[Point]:
    """Every combination of one point from each sweep; the last changes fastest.

    Raises:
      InputError: if two sweeps change one key.
    """
    return [functools.reduce(_merged, row, {}) for row in itertools.product(*sweeps)]


def zipped(*sweeps: Sequence[Point]) -> list[Point]:
    """Merges the first points of all sweeps, then the second ones, and so on.

    Raises:
      InputError: if the sweeps differ in length, or two change one key.
    """
    if len({len(sweep) for sweep in sweeps}) > 1:
        raise InputError(f"sweeps of {', '.join(str(len(s)) for s in sweeps)} points: zipped ones must be equally long")
    return [functools.reduce(_merged, row, {}) for row in zip(*sweeps, strict=True)]


def chain(*sweeps: Sequence[Point]) -> list[Point]:
    """One sweep after another."""
    return [point for sweep in sweeps for point in sweep]


def filtered(sweep: Sequence[Point], keep: Callable[[Point], bool]) -> list[Point]:
    """The points for which `keep` is true."""
    return [point for point in sweep if keep(point)]


def named(sweep: Iterable[Point], pattern: str) -> list[Point]:
    """Points with names made of their values: pattern "d{model.depth}_s{seed}", each key in braces."""
    return [{NAME: _filled(pattern, point), **point} for point in sweep]


def _filled(pattern: str, point: Point) -> str:
    for key, value in point.items():
        pattern = pattern.replace("{" + key + "}", str(value))
    if "{" in pattern:
        raise InputError(
            f"name '{pattern}' of a sweep's point: uses a key that it does not change; it has {', '.join(point)}"
        )
    return pattern


def _merged(one: Point, other: Point) -> Point:
    if both := sorted(set(one) & set(other)):
        raise InputError(f"two sweeps change '{both[0]}': leave it to one of them")
    return {**one, **other}


def checked(sweep: Sequence[Point]) -> list[Point]:
    """The points, checked: each has a name of its own that can name a folder.

    Raises:
      InputError: if there are no points, a name is missing, or one occurs twice.
    """
    names = [str(point.get(NAME, "")) for point in sweep]
    if not names:
        raise InputError("the sweep has no points: give it at least one")
    for name in names:
        if not name or not name.replace("_", "").replace("-", "").replace(".", "").isalnum() or name.startswith("."):
            raise InputError(f"the sweep's point '{name}': needs a name of letters, digits, '_', '-' and '.'")
        if names.count(name) > 1:
            raise InputError(f"two points of the sweep are named '{name}': name them by all that they differ in")
    return list(sweep)


def overrides(point: Point) -> list[str]:
    """The point's changes as words of a command line, "--config.key=value"."""
    return [f"--config.{key}={value}" for key, value in point.items() if key != NAME]
