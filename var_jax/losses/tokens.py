"""Cross entropy of tokens, position by position."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def token_losses(logits_BxLxV: jax.Array, tokens_BxL: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """[B, L] each: -log p of the token, whether it is the likeliest, and the mean of -log p over all tokens."""
    normaliser = jax.nn.logsumexp(logits_BxLxV, axis=-1)
    chosen = jnp.take_along_axis(logits_BxLxV, tokens_BxL[..., None], axis=-1)[..., 0]
    hit = jnp.argmax(logits_BxLxV, axis=-1) == tokens_BxL
    return normaliser - chosen, hit.astype(jnp.float32), normaliser - jnp.mean(logits_BxLxV, axis=-1)
