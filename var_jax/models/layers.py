"""Kernels of every layer as arrays of their own, for programs on a CPU.

Stacked arrays are what parameters are everywhere else, with a loop over layers that slices them. XLA on a CPU copies
what is sliced: in sampling all kernels once a scale, in training once a micro-batch, and the gradients when they are
stacked. Arrays of their own are read where they lie. Given such, sampling keeps its loop over layers and takes a branch
for each product, and training has no loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from var_jax.models.parameters import Params

# Of a block: nearly all that its parameters weigh.
KERNELS = ("qkv_kernel", "out_kernel", "mlp_in_kernel", "mlp_out_kernel")
ALL_KERNELS = (*KERNELS, "adaln_kernel")  # the last is read once a call, for all layers: apart in training only


class OneOf(NamedTuple):
    """One layer's kernel: those of all layers, and the index of which, traced or not."""

    kernels: tuple[jax.Array, ...]
    index: jax.Array | int


def with_kernel(
    function: Callable[[jax.Array, jax.Array], jax.Array], x: jax.Array, kernel: jax.Array | OneOf
) -> jax.Array:
    """`function(x, kernel)`; of one of many whose index is traced, a branch for each."""
    if not isinstance(kernel, OneOf):
        return function(x, kernel)
    if isinstance(kernel.index, int):
        return function(x, kernel.kernels[kernel.index])
    branches = [lambda x, kernels, number=number: function(x, kernels[number]) for number in range(len(kernel.kernels))]
    return jax.lax.switch(kernel.index, branches, x, kernel.kernels)


def by_layer(params: Params) -> Params:
    """A transformer's parameters with their kernels taken apart, within a program that trains."""
    split = lambda stack: jax.lax.optimization_barrier(tuple(stack[number] for number in range(len(stack))))
    return _with(split, params)


def stacked(params: Params) -> Params:
    """What `by_layer` took apart, or gradients of it, put together."""
    return _with(jnp.stack, params)


def _with(function: Callable[[Any], Any], params: Params) -> Params:
    blocks = params["blocks"]
    return params | {"blocks": {name: function(x) if name in ALL_KERNELS else x for name, x in blocks.items()}}
