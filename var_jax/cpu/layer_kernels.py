"""Kernels of every layer as arrays of their own, for programs on one CPU.

Everywhere else parameters are stacked, and a loop over layers slices them. XLA on a CPU copies each slice: in sampling
all kernels once per scale, in training once per micro-batch, and the gradients when they are stacked. Arrays of their
own are read where they lie. With them, sampling keeps its loop over layers and takes a branch for each product, and
training has no loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from var_jax.cpu.matmul import matmul
from var_jax.models import backend
from var_jax.models.backend import Layer, Use
from var_jax.models.parameters import Params
from var_jax.models.recompute import policy

# Of a block: nearly all of its weights.
KERNELS = ("qkv_kernel", "out_kernel", "mlp_in_kernel", "mlp_out_kernel")
ALL_KERNELS = (*KERNELS, "adaln_kernel")  # the last is read once per call, for all layers: apart in training only


class OneOf(NamedTuple):
    """One layer's kernel: those of all layers, and the index of this one, traced or not."""

    kernels: tuple[jax.Array, ...]
    index: jax.Array | int


def for_sampling(params: Params) -> Params:
    """Parameters on one CPU with their kernels by layer, without a copy; any others as they are.

    Done once per model: each layer's array takes some microseconds to make.
    """
    stacks = [params["blocks"][name] for name in KERNELS]
    devices = {device for stack in stacks if isinstance(stack, jax.Array) for device in stack.devices()}
    if len(devices) != 1 or next(iter(devices)).platform != "cpu":
        return params
    # An array over memory that numpy shows is made without a copy, if it begins where arrays do.
    return _with(lambda stack: tuple(jax.device_put(list(np.asarray(stack)), *devices)), params, KERNELS)


def shapes_for_sampling(shapes: Params) -> Params:
    """The result of `for_sampling` on one CPU, of `jax.ShapeDtypeStruct`s."""
    by_layer = lambda stack: (jax.ShapeDtypeStruct(stack.shape[1:], stack.dtype),) * stack.shape[0]
    return _with(by_layer, shapes, KERNELS)


def by_layer(params: Params) -> Params:
    """A transformer's parameters with their kernels taken apart, within a program that trains."""
    split = lambda stack: jax.lax.optimization_barrier(tuple(stack[number] for number in range(len(stack))))
    return _with(split, params, ALL_KERNELS)


def stacked(params: Params) -> Params:
    """Inverse of `by_layer`, for parameters or their gradients."""
    return _with(jnp.stack, params, ALL_KERNELS)


def _with(function: Callable[[Any], Any], params: Params, names: tuple[str, ...]) -> Params:
    blocks = params["blocks"]
    return params | {"blocks": {name: function(x) if name in names else x for name, x in blocks.items()}}


def layers(layer: Layer, carry: Any, params: Params, others: Any, remat: str | None = None) -> Any:
    """See `models.backend.scanned`; without a loop where kernels are apart, so that no gradient is stacked."""
    own = {name: value for name, value in params.items() if isinstance(value, tuple)}
    if not own:
        return backend.scanned(layer, carry, params, others, remat)
    rest = {name: value for name, value in params.items() if name not in own}
    for index in range(len(next(iter(own.values())))):
        slices = jax.tree.map(lambda stack, index=index: stack[index], (rest, others))

        def one(carry: Any, slices: Any, index: int = index) -> Any:
            return layer(carry, _with_own(slices[0], own, index), slices[1], index)

        carry = (one if remat is None else jax.checkpoint(one, policy=policy(remat)))(carry, slices)
    return carry


def sampling_layers(layer: Layer, carry: Any, params: Params, others: Any) -> Any:
    """See `models.backend.scanned`; where kernels are apart, each product in the loop takes a branch per layer."""
    own = {name: value for name, value in params.items() if isinstance(value, tuple)}
    rest = {name: value for name, value in params.items() if name not in own}
    with_own = lambda carry, params, others, index: layer(carry, _with_own(params, own, index), others, index)
    return backend.scanned(with_own, carry, rest, others)


def _with_own(params: Params, own: dict[str, tuple[jax.Array, ...]], index: jax.Array | int) -> Params:
    return params | {name: OneOf(kernels, index) for name, kernels in own.items()}


def product(x: jax.Array, kernel: Any, axes: int, precision: jax.lax.PrecisionLike, use: Use) -> jax.Array:
    """See `models.backend.product`; with one of many kernels whose index is traced, a branch for each."""
    one = lambda x, kernel: matmul(x, use(kernel), axes, precision)
    if not isinstance(kernel, OneOf):
        return one(x, kernel)
    if isinstance(kernel.index, int):
        return one(x, kernel.kernels[kernel.index])
    branches = [lambda x, kernels, number=number: one(x, kernels[number]) for number in range(len(kernel.kernels))]
    return jax.lax.switch(kernel.index, branches, x, kernel.kernels)


def in_every_layer(project: Callable[[str, jax.Array, jax.Array], jax.Array], x_BxW: jax.Array, kernel: Any) -> Any:
    """See `models.backend.in_every_layer`."""
    if not isinstance(kernel, tuple):
        return backend.in_every_layer(project, x_BxW, kernel)
    # As matrices, so that gradients are not transposed in memory.
    each = [project("bw,wv->bv", x_BxW, one.reshape(len(one), -1)) for one in kernel]
    return jnp.stack(each).reshape(len(kernel), len(x_BxW), *kernel[0].shape[1:])
