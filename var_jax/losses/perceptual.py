"""Perceptual losses between two pictures: LPIPS on VGG16, and a loss on structure that needs no weights.

Pictures are NHWC, RGB, in [-1, 1]; the result is float32 [B], 0 for identical pictures.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from var_jax.errors import InputError
from var_jax.models.parameters import Params
from var_jax.models.precision import widened
from var_jax.pretrained.vgg import SMALLEST_SIDE, VGG16, normalised

_EPSILON = 1e-10  # added to a feature vector's length before the division


def lpips(params: Params, x_BxHxWx3: jax.Array, y_BxHxWx3: jax.Array) -> jax.Array:
    """LPIPS (Zhang et al., arXiv 1801.03924), version 0.1 on VGG16.

    At each of five depths feature vectors are scaled to length 1, squared differences weighted by channel
    and averaged over positions; the five results are added.

    Args:
      params: {"trunk": parameters of `VGG16`, "heads": [five arrays [C]]}, see `pretrained.lpips_file`.
      x_BxHxWx3, y_BxHxWx3: pictures in [-1, 1].

    Returns:
      [B]. Gradients are finite everywhere, zero at identical pictures.

    Raises:
      InputError: for pictures smaller than 16 pixels.
    """
    if min(x_BxHxWx3.shape[1:3]) < SMALLEST_SIDE:
        raise InputError(f"LPIPS: pictures of {x_BxHxWx3.shape[1:3]} pixels, VGG16 needs {SMALLEST_SIDE} at least")
    both = normalised(jnp.concatenate([x_BxHxWx3, y_BxHxWx3]))
    total = 0.0
    for maps, head_C in zip(VGG16().apply({"params": params["trunk"]}, both), params["heads"], strict=True):
        x, y = jnp.split(_unit_length(maps), 2)
        total = total + jnp.mean(jnp.square(x - y) @ head_C, axis=(1, 2))
    return total


def _unit_length(x_BxHxWxC: jax.Array) -> jax.Array:
    """x / (|x| + epsilon); the length of an all-zero vector passes on no gradient, instead of NaN."""
    square = jnp.sum(jnp.square(x_BxHxWxC), axis=-1, keepdims=True)
    empty = square == 0.0
    length = jnp.where(empty, 0.0, jnp.sqrt(jnp.where(empty, 1.0, square)))
    return x_BxHxWxC / (length + _EPSILON)


def structure_loss(x_BxHxWx3: jax.Array, y_BxHxWx3: jax.Array, levels: int = 4) -> jax.Array:
    """Difference of edges at several sizes: a loss that needs no weights, and is not LPIPS.

    At each level of a pyramid (each halved by averaging 2x2 pixels) the horizontal, vertical and both
    diagonal differences of neighbouring pixels are taken; their mean absolute error is summed over
    directions and divided by the number of levels. It penalises blurred and displaced edges, which a
    pixel loss hardly notices; it knows nothing of objects.

    Args:
      x_BxHxWx3, y_BxHxWx3: pictures in [-1, 1].
      levels: maximal number of levels; the pyramid ends before a side below 2.

    Returns:
      [B].
    """
    difference = widened(x_BxHxWx3) - widened(y_BxHxWx3)  # everything up to the absolute value is linear
    total, used = jnp.zeros(difference.shape[0], difference.dtype), 0
    while used < levels and min(difference.shape[1:3]) >= 2:
        corner = difference[:, :-1, :-1]
        edges = (
            difference[:, :, 1:] - difference[:, :, :-1],
            difference[:, 1:] - difference[:, :-1],
            (difference[:, 1:, 1:] - corner) * 0.5**0.5,  # over the longer way between diagonal neighbours
            (difference[:, 1:, :-1] - difference[:, :-1, 1:]) * 0.5**0.5,
        )
        total = total + sum(jnp.mean(jnp.abs(edge), axis=(1, 2, 3)) for edge in edges)
        difference, used = _halved(difference), used + 1
    return total / max(used, 1)


def _halved(x_BxHxWxC: jax.Array) -> jax.Array:
    """Means of 2x2 pixels; an odd row or column at the end is left out."""
    batch, height, width, channels = x_BxHxWxC.shape
    even = x_BxHxWxC[:, : height // 2 * 2, : width // 2 * 2]
    return jnp.mean(even.reshape(batch, height // 2, 2, width // 2, 2, channels), axis=(2, 4))
