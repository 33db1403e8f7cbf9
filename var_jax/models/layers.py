"""A kernel of every layer as an array of its own, where a loop over layers would copy what it slices.

Stacked arrays are what parameters are everywhere else. XLA on a CPU copies a layer's kernels out of the stack before
it multiplies by them, in sampling once a scale; arrays of their own are read where they lie.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax

# Of a block: nearly all that its parameters weigh.
KERNELS = ("qkv_kernel", "out_kernel", "mlp_in_kernel", "mlp_out_kernel")


class OneOf(NamedTuple):
    """One layer's kernel: those of all layers, and the traced index of which."""

    kernels: tuple[jax.Array, ...]
    index: jax.Array


def with_kernel(
    function: Callable[[jax.Array, jax.Array], jax.Array], x: jax.Array, kernel: jax.Array | OneOf
) -> jax.Array:
    """`function(x, kernel)`; of one of many, a branch for each."""
    if not isinstance(kernel, OneOf):
        return function(x, kernel)
    branches = [lambda x, kernels, number=number: function(x, kernels[number]) for number in range(len(kernel.kernels))]
    return jax.lax.switch(kernel.index, branches, x, kernel.kernels)
