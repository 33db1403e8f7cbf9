"""Attention kinds: pure functions that a transformer is given, all with one signature and one meaning.

An attention function takes queries that already carry the softmax scale, keys and values, and a static mask, and
returns what each query collects: `attention_fn(q_BxLxHxK, k_BxLxHxK, v_BxLxHxK, mask_LxL) -> BxLxHxK`.
`xla_attention` runs anywhere and is what the others are held to, `cudnn_attention` runs on NVIDIA GPUs,
`models.splash.Splash` on TPUs.
"""

from __future__ import annotations

from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from var_jax.models.autoencoder import precision_for
from var_jax.models.precision import at_least_float32


class AttentionFn(Protocol):
    """The signature every attention kind has."""

    def __call__(
        self, q_BxLxHxK: jax.Array, k_BxLxHxK: jax.Array, v_BxLxHxK: jax.Array, mask_LxL: np.ndarray
    ) -> jax.Array:
        """`mask_LxL` is True where a query may look."""
        ...


def xla_attention(
    q_BxLxHxK: jax.Array, k_BxMxHxK: jax.Array, v_BxMxHxK: jax.Array, mask_LxM: np.ndarray | None
) -> jax.Array:
    """Plain attention in XLA; scores and softmax in float32, products in the inputs' type.

    Without a mask every query sees every key, however many there are: so it is what sampling uses too. Scores are not
    kept for the backward pass but made again, whatever policy a block is under: all layers' would be more than all
    else that a training keeps.
    """
    dtype = q_BxLxHxK.dtype
    precision, wide = precision_for(dtype), at_least_float32(dtype)

    def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        scores = jnp.einsum("blhk,bmhk->bhlm", q, k, precision=precision, preferred_element_type=wide)
        if mask_LxM is not None:
            scores = jnp.where(mask_LxM[None, None], scores, -jnp.inf)
        weights = jax.nn.softmax(scores, axis=-1).astype(dtype)
        return jnp.einsum("bhlm,bmhk->blhk", weights, v, precision=precision)

    # Not `jax.checkpoint`: a policy around it that keeps products would keep the scores after all.
    remade = jax.custom_vjp(attend)
    remade.defvjp(lambda *inputs: (attend(*inputs), inputs), lambda inputs, grad: jax.vjp(attend, *inputs)[1](grad))
    return remade(q_BxLxHxK, k_BxMxHxK, v_BxMxHxK)


def cudnn_attention(
    q_BxLxHxK: jax.Array, k_BxLxHxK: jax.Array, v_BxLxHxK: jax.Array, mask_LxL: np.ndarray
) -> jax.Array:
    """Attention by cuDNN's kernel on NVIDIA GPUs, which keeps no matrix of all scores; bfloat16 or float16 only.

    Its backward pass wants an even length, so that an odd one is padded by a key that nobody sees.
    """
    length = q_BxLxHxK.shape[1]
    odd = length % 2
    padded = [jnp.pad(x, ((0, 0), (0, odd), (0, 0), (0, 0))) for x in (q_BxLxHxK, k_BxLxHxK, v_BxLxHxK)]
    mask = np.pad(mask_LxL, ((0, odd), (0, 0)), mode="edge")
    mask = np.pad(mask, ((0, 0), (0, odd)))[None, None]
    out = jax.nn.dot_product_attention(*padded, mask=jnp.asarray(mask), scale=1.0, implementation="cudnn")
    return out[:, :length]
