"""Products of activations and kernels, in the order in which a CPU does them fastest.

Kernels with axes for heads are taken as matrices: otherwise XLA transposes them, and their gradients, in memory.
(Elsewhere they stay as they are, since heads may be split over a mesh.) With a few rows, as in sampling's coarse
scales, XLA's library for CPUs reads a kernel once for every eight of them, up to as many as make it worth to lay the
kernel out anew; with activations that lie column by column it does that at once.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

_FEW_ROWS = range(9, 52)  # measured: where columns are never slower, and up to a third faster


def matmul(x: jax.Array, kernel: jax.Array, axes: int, precision: jax.lax.PrecisionLike = None) -> jax.Array:
    """Sums the last `axes` axes of x over the first axes of a kernel."""
    shape = *x.shape[: x.ndim - axes], *kernel.shape[axes:]
    size = math.prod(kernel.shape[:axes])
    x, kernel = x.reshape(-1, size), kernel.reshape(size, -1)
    if x.dtype == jnp.float32 and len(x) in _FEW_ROWS:
        return jnp.einsum("ir,io->ro", jax.lax.optimization_barrier(x.T), kernel, precision=precision).reshape(shape)
    return jnp.dot(x, kernel, precision=precision).reshape(shape)
