"""Classifier-free guidance: how strong at which scale.

The reference's convention: logits = (1 + t) cond - t uncond, so a strength of **0 is no guidance**
(papers often call that 1), and t grows linearly from 0 at the coarsest scale to the strength at the
finest.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from var_jax.pyramid import Pyramid


def linear_schedule(strength: jax.Array | float, pyramid: Pyramid) -> jax.Array:
    """[S] float32: t of each scale, strength * k / (S-1)."""
    ratios = jnp.asarray([pyramid.ratio(k) for k in range(len(pyramid))], jnp.float32)
    return jnp.asarray(strength, jnp.float32) * ratios


def guide(logits_2BxlxV: jax.Array, t: jax.Array) -> jax.Array:
    """Guided logits [B, l, V] from rows that alternate: with class, without, with, without ..."""
    pairs = logits_2BxlxV.reshape(-1, 2, *logits_2BxlxV.shape[1:])
    return (1.0 + t) * pairs[:, 0] - t * pairs[:, 1]
