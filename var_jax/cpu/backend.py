"""The backends of CPUs, and the one place that chooses a backend for a mesh.

`ONE_CPU` is for programs on a single CPU device; `CPUS` leaves out the parts that hold on one device only.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import optax
from flax import linen as nn

from var_jax.cpu import layer_kernels
from var_jax.cpu.convolution import convolve
from var_jax.models.attention import AttentionFn, xla_attention
from var_jax.models.backend import XLA, Backend, Finish, Optimizer, whole_batch
from var_jax.models.parameters import Params

_LARGE_PICTURE = 2**24  # bytes of the widest features at full size


def one_by_one(network: nn.Module, x_BxHxWxC: jax.Array, deterministic: bool, feature_bytes: int) -> jax.Array:
    """Runs encoder or decoder on one large picture after the other: all at once would fill no cache."""
    if len(x_BxHxWxC) == 1 or feature_bytes < _LARGE_PICTURE or not deterministic or network.is_initializing():
        return whole_batch(network, x_BxHxWxC, deterministic, feature_bytes)
    module, variables = network.unbind()
    return jax.lax.map(lambda picture: module.apply(variables, picture[None])[0], x_BxHxWxC)


def in_place(optimizer: Optimizer, grads: Params, opt_state: Any, params: Params, finish: Finish) -> tuple[Any, Any]:
    """See `models.backend.update`: first the parameters, then the state, each in place; XLA would copy all state."""
    updates, _ = optimizer.update(grads, opt_state, params)
    finished, grads = jax.lax.optimization_barrier((finish(optax.apply_updates(params, updates)), grads))
    return finished, optimizer.update(grads, opt_state, params)[1]


CPUS = Backend(product=layer_kernels.product, convolution=convolve)
ONE_CPU = dataclasses.replace(
    CPUS,
    layers=layer_kernels.layers,
    sampling_layers=layer_kernels.sampling_layers,
    in_every_layer=layer_kernels.in_every_layer,
    pictures=one_by_one,
    prepare=layer_kernels.for_sampling,
    split=layer_kernels.by_layer,
    restore=layer_kernels.stacked,
    update=in_place,
)


def backend_for(mesh: jax.sharding.Mesh | None = None, attention: AttentionFn = xla_attention) -> Backend:
    """The backend for programs on a mesh, or on the default device."""
    devices = jax.devices()[:1] if mesh is None else list(mesh.devices.flat)
    plain = XLA
    if devices[0].platform == "cpu":
        plain = ONE_CPU if len(devices) == 1 else CPUS
    return dataclasses.replace(plain, attention=attention)
