"""Types: computing in float32 even where the compute type is narrower, and in the compute type where it is wider.

In use that is float32. With a compute type of float64, in which two ways of computing the same thing can be
held against each other to many digits, nothing on the way falls back to float32.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

Dtype: TypeAlias = jax.typing.DTypeLike


def at_least_float32(dtype: Dtype) -> jnp.dtype:
    """float32 for bfloat16 and float32, float64 for float64."""
    return jnp.promote_types(dtype, jnp.float32)


def widened(x: jax.Array) -> jax.Array:
    """x in float32, or float64 if it is that."""
    return x.astype(at_least_float32(x.dtype))


def parameters_for(dtype: Dtype, params: Any) -> Any:
    """Parameters in the type that they are learned in under the compute type `dtype`."""
    return jax.tree.map(lambda leaf: leaf.astype(at_least_float32(dtype)), params)


def precision_for(dtype: Dtype) -> jax.lax.Precision | None:
    """Full float32 products for float32 compute (or wider), the platform's own for anything narrower."""
    return jax.lax.Precision.HIGHEST if at_least_float32(dtype) == dtype else None
