"""Differentiable augmentation of a discriminator's input (DiffAugment, Zhao et al., arXiv 2006.10738).

Pictures and reconstructions are changed alike before they are judged, so that the discriminator cannot
memorise a few pictures, and gradients pass through to the generator. Pictures are [B, H, W, 3] in [-1, 1].
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

_HIGHEST = jax.lax.Precision.HIGHEST


def augmented(key: jax.Array, images_BxHxWx3: jax.Array, translation: float = 0.125, cutout: float = 0.2) -> jax.Array:
    """Changes colours, shifts and cuts out a square, drawn per picture.

    Args:
      key: random key.
      images_BxHxWx3: pictures in [-1, 1]; the result may leave that range.
      translation: largest shift, relative to the side; pixels from outside are 0. 0 is off.
      cutout: side of the square set to 0, relative to the picture's side. 0 is off.
    """
    batch, height, width, _ = images_BxHxWx3.shape
    keys = jax.random.split(key, 7)
    colours = [jax.random.uniform(keys[index], (batch,), jnp.float32) for index in range(3)]
    images = recoloured(images_BxHxWx3, colours[0] - 0.5, 2.0 * colours[1], colours[2] + 0.5)
    sides = (height, width)
    if translation:
        most = [int(side * translation + 0.5) for side in sides]
        shifts = [
            jax.random.randint(keys[3 + axis], (batch,), -most[axis], most[axis] + 1, jnp.int32) for axis in range(2)
        ]
        images = shifted(images, *shifts)
    if cutout:
        size = [int(side * cutout + 0.5) for side in sides]
        # The centre may lie on any pixel, so a square may be cut by the border.
        first = [
            jax.random.randint(keys[5 + axis], (batch,), 0, sides[axis], jnp.int32) - size[axis] // 2
            for axis in range(2)
        ]
        images = with_hole(images, *first, *size)
    return images


def recoloured(
    images_BxHxWx3: jax.Array, brightness_B: jax.Array, saturation_B: jax.Array, contrast_B: jax.Array
) -> jax.Array:
    """Adds brightness, then scales the distance from each pixel's mean of channels, then from the picture's mean."""
    brightness, saturation, contrast = (x[:, None, None, None] for x in (brightness_B, saturation_B, contrast_B))
    images = images_BxHxWx3 + brightness
    grey = jnp.mean(images, axis=3, keepdims=True)
    images = (images - grey) * saturation + grey
    mean = jnp.mean(images, axis=(1, 2, 3), keepdims=True)
    return (images - mean) * contrast + mean


def shifted(images_BxHxWxC: jax.Array, down_B: jax.Array, right_B: jax.Array) -> jax.Array:
    """Moves each picture by whole pixels; pixels from outside are 0.

    Uses products with 0-1 matrices, whose transposes are as fast as the products; a scatter's would not be.
    """
    down_BxHxH = _shift_matrix(down_B, images_BxHxWxC.shape[1], images_BxHxWxC.dtype)
    right_BxWxW = _shift_matrix(right_B, images_BxHxWxC.shape[2], images_BxHxWxC.dtype)
    images = jnp.einsum("bih,bhwc->biwc", down_BxHxH, images_BxHxWxC, precision=_HIGHEST)
    return jnp.einsum("bjw,biwc->bijc", right_BxWxW, images, precision=_HIGHEST)


def _shift_matrix(shift_B: jax.Array, side: int, dtype: jnp.dtype) -> jax.Array:
    place = jnp.arange(side)
    return (place[None, :, None] == place[None, None, :] + shift_B[:, None, None]).astype(dtype)


def with_hole(images_BxHxWxC: jax.Array, top_B: jax.Array, left_B: jax.Array, height: int, width: int) -> jax.Array:
    """Sets a rectangle of each picture to 0; any part of it may lie outside."""
    rows, columns = (jnp.arange(side)[None] for side in images_BxHxWxC.shape[1:3])
    inside_BxH = (rows >= top_B[:, None]) & (rows < top_B[:, None] + height)
    inside_BxW = (columns >= left_B[:, None]) & (columns < left_B[:, None] + width)
    return jnp.where((inside_BxH[:, :, None] & inside_BxW[:, None, :])[..., None], 0.0, images_BxHxWxC)
