"""Policies by name: which results blocks keep for the backward pass, and which they compute once more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

PRODUCTS = "products"
ATTENTION = "attention"  # marks results of the forward pass that an attention kind's backward pass needs

Policy = Callable[..., Any]


def policy(name: str) -> Policy:
    """`PRODUCTS`, or one of `jax.checkpoint_policies` that takes no arguments.

    `PRODUCTS` keeps the results of matrix products, convolutions and attention kernels. Norms, activations and the like
    are computed once more: little work, and most of the memory that a block would hold.

    Raises:
      KeyError: if there is none of that name.
    """
    return {**_jax_policies(), PRODUCTS: _products()}[name]


def policies() -> tuple[str, ...]:
    """The names that `policy` takes."""
    return PRODUCTS, *_jax_policies()


def _jax_policies() -> dict[str, Policy]:
    """JAX's own by name, without the functions that make one of arguments."""
    others = ("_", "save_", "offload_")
    return {name: value for name, value in vars(jax.checkpoint_policies).items() if not name.startswith(others)}


def _products() -> Policy:
    from_jax = jax.checkpoint_policies
    named = from_jax.save_from_both_policies(from_jax.dots_saveable, from_jax.save_only_these_names(ATTENTION))

    def keeps(primitive: Any, *arrays: Any, **params: Any) -> Any:
        return primitive is jax.lax.conv_general_dilated_p or named(primitive, *arrays, **params)

    return keeps
