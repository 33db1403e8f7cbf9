"""The work that a device may do its own way, as functions that the models are given.

All backends give the same numbers up to rounding. The models hand parameters from `layers` to `product` and never
look at how a backend lays them out. `XLA` is the plain form and suits GPUs and TPUs; `var_jax.cpu.backend` has the
others and chooses one for a mesh.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from var_jax.models.attention import AttentionFn, xla_attention
from var_jax.models.parameters import Params
from var_jax.models.recompute import policy

# (carry, one layer's parameters, one layer's other inputs, its index) -> carry.
Layer = Callable[[Any, Params, Any, jax.Array], Any]
# Casts a kernel to the compute type and places it on the mesh.
Use = Callable[[jax.Array], jax.Array]
Optimizer: TypeAlias = optax.GradientTransformation
# New parameters -> those that stay, with anything else that a step makes of them.
Finish = Callable[[Params], Any]


def scanned(layer: Layer, carry: Any, params: Params, others: Any, remat: str | None = None) -> Any:
    """Runs a layer D times in one `lax.scan` over the first axis of its parameters and other inputs."""

    def step(carry: Any, inputs: Any) -> tuple[Any, None]:
        return layer(carry, *inputs), None

    if remat is not None:
        step = jax.checkpoint(step, prevent_cse=False, policy=policy(remat))
    depth = len(jax.tree.leaves(params)[0])
    return jax.lax.scan(step, carry, (params, others, jnp.arange(depth)))[0]


def product(x: jax.Array, kernel: Any, axes: int, precision: jax.lax.PrecisionLike, use: Use) -> jax.Array:
    """Sums the last `axes` axes of x over the first axes of `use(kernel)`."""
    return jnp.tensordot(x, use(kernel), axes, precision=precision)


def in_every_layer(project: Callable[[str, jax.Array, jax.Array], jax.Array], x_BxW: jax.Array, kernel: Any) -> Any:
    """One input projected by the kernels [D, W, G, V] of all layers: [D, B, G, V].

    Each layer has its own copy of the input: one product with all kernels would transpose them in memory.
    """
    x_DxBxW = jnp.broadcast_to(x_BxW, (len(kernel), *x_BxW.shape))
    return project("dbw,dwgv->dbgv", x_DxBxW, kernel)


def whole_batch(network: nn.Module, x_BxHxWxC: jax.Array, deterministic: bool, feature_bytes: int) -> jax.Array:
    """Runs encoder or decoder on all pictures at once."""
    return network(x_BxHxWxC, deterministic)


def same(params: Params) -> Params:
    """The parameters as they are."""
    return params


def update(optimizer: Optimizer, grads: Params, opt_state: Any, params: Params, finish: Finish) -> tuple[Any, Any]:
    """`finish` of the parameters after one optimizer step, and the optimizer's new state."""
    updates, new_state = optimizer.update(grads, opt_state, params)
    return finish(optax.apply_updates(params, updates)), new_state


@dataclasses.dataclass(frozen=True)
class Backend:
    """How the models compute on a kind of device; hashable, so that a module may carry it.

    Attributes:
      attention: of teacher-forced passes. Sampling, where nothing is masked and the keys come from the cache, is
        always `xla_attention`.
      layers: runs the blocks of a teacher-forced pass.
      sampling_layers: runs the blocks for one scale in sampling.
      product: multiplies activations by one layer's kernel.
      in_every_layer: projects one input by the kernels of all layers.
      convolution: 3x3 convolutions that keep the size; as `jax.lax.conv_general_dilated`.
      pictures: runs encoder or decoder on a batch of pictures.
      prepare: lays a transformer's parameters out for sampling, once, outside a program.
      split, restore: lay parameters out for micro-batches within a training step, and gradients back.
      update: applies the optimizer.
    """

    attention: AttentionFn = xla_attention
    layers: Callable[..., Any] = scanned
    sampling_layers: Callable[..., Any] = scanned
    product: Callable[..., jax.Array] = product
    in_every_layer: Callable[..., jax.Array] = in_every_layer
    convolution: Callable[..., jax.Array] = jax.lax.conv_general_dilated
    pictures: Callable[..., jax.Array] = whole_batch
    prepare: Callable[[Params], Params] = same
    split: Callable[[Params], Params] = same
    restore: Callable[[Params], Params] = same
    update: Callable[..., tuple[Any, Any]] = update


XLA = Backend()
