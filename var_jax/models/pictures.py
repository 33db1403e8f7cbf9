"""Pictures at the public face, uint8 or [0, 1]: to and from the models' range [-1, 1], to and from tokens."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from var_jax.models.parameters import Params
from var_jax.models.tokenizer import Tokenizer


def to_signed(images: jax.Array) -> jax.Array:
    """Pictures in uint8, or float in [0, 1], as float32 in [-1, 1]."""
    x = images.astype(jnp.float32)
    return 2.0 * (x / 255.0 if images.dtype == jnp.uint8 else x) - 1.0


def to_unit(images: jax.Array) -> jax.Array:
    """Pictures in [-1, 1], clipped to that range, as float32 in [0, 1]."""
    return (jnp.clip(images, -1.0, 1.0) + 1.0) / 2.0


@functools.partial(jax.jit, static_argnums=0)
def encode_pictures(tokenizer: Tokenizer, params: Params, images_BxHxWx3: jax.Array) -> jax.Array:
    """Pictures in uint8, or float in [0, 1] -> tokens [B, L] int32."""
    return tokenizer.apply({"params": params}, to_signed(images_BxHxWx3), method="encode")


@functools.partial(jax.jit, static_argnums=0)
def decode_pictures(tokenizer: Tokenizer, params: Params, tokens_BxL: jax.Array, scales: jax.Array) -> jax.Array:
    """Tokens, of which the first `scales` count -> pictures [B, H, W, 3] float32 in [0, 1]."""
    return (tokenizer.apply({"params": params}, tokens_BxL, scales, method="decode") + 1.0) / 2.0
