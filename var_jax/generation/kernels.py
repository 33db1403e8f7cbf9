"""The transformer's parameters as sampling takes them: on a CPU every layer's kernels as arrays of their own."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from var_jax.models.layers import KERNELS
from var_jax.models.parameters import Params


def for_sampling(params: Params) -> Params:
    """Parameters on one CPU with their kernels by layer, which lie where they lay; any others as they are.

    See `models.layers`. Made once and used often: each layer's array takes some microseconds to make.
    """
    blocks = params["blocks"]
    devices = set().union(*(_devices(blocks[name]) for name in KERNELS))
    if len(devices) != 1 or next(iter(devices)).platform != "cpu":
        return params

    def by_layer(stack: jax.Array) -> tuple[jax.Array, ...]:
        # An array over memory that numpy shows is made without a copy, if it begins where arrays do.
        return tuple(jax.device_put(list(np.asarray(stack)), *devices))

    return params | {"blocks": blocks | {name: by_layer(blocks[name]) for name in KERNELS}}


def _devices(stack: Any) -> set[jax.Device]:
    """Where it lies; nowhere, if it is numpy's."""
    return stack.devices() if isinstance(stack, jax.Array) else set()


def shapes_for_sampling(shapes: Params) -> Params:
    """The result of `for_sampling` on a CPU, as `jax.ShapeDtypeStruct`s."""
    blocks = shapes["blocks"]

    def by_layer(stack: jax.ShapeDtypeStruct) -> tuple[jax.ShapeDtypeStruct, ...]:
        return (jax.ShapeDtypeStruct(stack.shape[1:], stack.dtype),) * stack.shape[0]

    return shapes | {"blocks": blocks | {name: by_layer(blocks[name]) for name in KERNELS}}
