"""The two ranges of pictures: [-1, 1] inside the models, uint8 or [0, 1] at the public face."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from var_jax.models.net import Net
from var_jax.models.reproducible import own_settings


def to_signed(images: jax.Array) -> jax.Array:
    """Pictures in uint8, or float in [0, 1], as float32 in [-1, 1]."""
    x = images.astype(jnp.float32)
    return 2.0 * (x / 255.0 if images.dtype == jnp.uint8 else x) - 1.0


def to_unit(images: jax.Array) -> jax.Array:
    """Pictures in [-1, 1], clipped to that range, as float32 in [0, 1]."""
    return (jnp.clip(images, -1.0, 1.0) + 1.0) / 2.0


@jax.jit
@own_settings()
def encode_pictures(tokenizer: Net, images_BxHxWx3: jax.Array) -> jax.Array:
    """Pictures in uint8, or float in [0, 1] -> tokens [B, L] int32."""
    return tokenizer.apply(to_signed(images_BxHxWx3), method="encode")


@jax.jit
@own_settings()
def decode_pictures(tokenizer: Net, tokens_BxL: jax.Array, scales: jax.Array | int) -> jax.Array:
    """Tokens of the first `scales` scales -> pictures [B, H, W, 3] float32 in [0, 1]."""
    return to_unit(tokenizer.apply(tokens_BxL, scales, method="decode"))
