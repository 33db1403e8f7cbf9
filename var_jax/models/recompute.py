"""Policies by name: which results blocks keep for the backward pass, and which they compute once more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

PRODUCTS = "products"
ATTENTION = "attention"  # marks results of the forward pass that an attention kind's backward pass needs

Policy = Callable[..., Any]


def policy(name: str) -> Policy:
    """`PRODUCTS`, or one of `jax.checkpoint_policies`.

    `PRODUCTS` keeps the results of matrix products, convolutions and attention kernels. Norms, activations and the like
    are computed once more: little work, and most of the memory that a block would hold.

    Raises:
      KeyError: if there is none of that name.
    """
    return {**_jax_policies(), PRODUCTS: _products()}[name]


def policies() -> tuple[str, ...]:
    """The names that people would choose from."""
    return PRODUCTS, *(name for name in _jax_policies() if name.endswith("saveable"))


def _jax_policies() -> dict[str, Policy]:
    return {name: value for name, value in vars(jax.checkpoint_policies).items() if not name.startswith("_")}


def _products() -> Policy:
    from_jax = jax.checkpoint_policies
    named = from_jax.save_from_both_policies(from_jax.dots_saveable, from_jax.save_only_these_names(ATTENTION))

    def keeps(primitive: Any, *arrays: Any, **params: Any) -> Any:
        return primitive is jax.lax.conv_general_dilated_p or named(primitive, *arrays, **params)

    return keeps
