"""Attention kinds: pure functions that a transformer is given, all with one signature and one meaning.

An attention function takes queries that already carry the softmax scale, keys and values, and an
optional static mask, and returns what each query collects:
`attention_fn(q_BxLxHxK, k_BxMxHxK, v_BxMxHxK, mask_LxM) -> BxLxHxK`.
"""

from __future__ import annotations

from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from var_jax.models.autoencoder import precision_for
from var_jax.models.precision import at_least_float32


class AttentionFn(Protocol):
    """The signature every attention kind has."""

    def __call__(
        self, q_BxLxHxK: jax.Array, k_BxMxHxK: jax.Array, v_BxMxHxK: jax.Array, mask_LxM: np.ndarray | None
    ) -> jax.Array:
        """`mask_LxM` is True where a query may look; None lets every query see every key."""
        ...


def xla_attention(
    q_BxLxHxK: jax.Array, k_BxMxHxK: jax.Array, v_BxMxHxK: jax.Array, mask_LxM: np.ndarray | None
) -> jax.Array:
    """Plain attention in XLA; scores and softmax in float32, products in the inputs' type."""
    dtype = q_BxLxHxK.dtype
    precision = precision_for(dtype)
    scores = jnp.einsum(
        "blhk,bmhk->bhlm", q_BxLxHxK, k_BxMxHxK, precision=precision, preferred_element_type=at_least_float32(dtype)
    )
    if mask_LxM is not None:
        scores = jnp.where(mask_LxM[None, None], scores, -jnp.inf)
    weights = jax.nn.softmax(scores, axis=-1).astype(dtype)
    return jnp.einsum("bhlm,bmhk->blhk", weights, v_BxMxHxK, precision=precision)
