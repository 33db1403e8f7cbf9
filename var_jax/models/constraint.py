"""Sharding constraints as the models see them: a function of an array and its name, bound to a mesh outside."""

from __future__ import annotations

from collections.abc import Callable

import jax

Constrain = Callable[[jax.Array, str], jax.Array]


def identity(x: jax.Array, name: str) -> jax.Array:
    """The `constrain` of a single device."""
    return x
