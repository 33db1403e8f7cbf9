"""Draws from a raster-scan transformer: one token after another, guidance, filtering and cache in one loop."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from var_jax.generation.filtering import draw, filter_logits
from var_jax.generation.guidance import guide
from var_jax.models.baselines import BaselineTransformer
from var_jax.models.quantizer import Quantizer
from var_jax.models.transformer import new_cache


def sample_tokens(
    transformer: BaselineTransformer,
    quantizer: Quantizer,
    rows: jax.Array,
    keys_B: jax.Array,
    strengths: tuple[jax.Array, jax.Array, jax.Array, jax.Array],
    guided: bool,
) -> tuple[jax.Array, jax.Array]:
    """Tokens [B, L] int32 in raster order and the guided logits [B, L, V] they were drawn from.

    Args:
      transformer, quantizer: bound to their parameters.
      rows: class ids [B]; under guidance [2B], that alternate with "no class".
      keys_B: one key a picture, folded with the position.
      strengths: guidance (the same at every position), top_k, top_p, temperature; scalars.
      guided: whether rows alternate.
    """
    length = transformer.config.pyramid.length
    conditioning, empty_LxW = transformer.condition(rows), transformer.empty_inputs()
    guidance, top_k, top_p, temperature = strengths

    def step(carry: tuple, position: jax.Array) -> tuple[tuple, tuple[jax.Array, jax.Array]]:
        x, cache = carry
        logits, cache = transformer.raster_step(x, position, conditioning, cache)
        logits = guide(logits, guidance) if guided else logits
        keys = jax.vmap(lambda key: jax.random.fold_in(key, position))(keys_B)
        token_B = draw(keys, filter_logits(logits / temperature, top_k, top_p))[:, 0]
        codes = quantizer.embed(token_B)
        codes = jnp.repeat(codes, 2, axis=0) if guided else codes
        following = empty_LxW[jnp.minimum(position + 1, length - 1)]
        return (following + transformer.project_code(codes), cache), (token_B, logits[:, 0])

    cache = new_cache(transformer.config, rows.shape[0], transformer.dtype, length)
    start = transformer.first_inputs(conditioning), cache
    _, (tokens_LxB, logits_LxBxV) = jax.lax.scan(step, start, jnp.arange(length))
    return tokens_LxB.T, logits_LxBxV.swapaxes(0, 1)
