"""The raster-scan baseline: the same transformer over one scale's tokens, one after another, row by row.

A config with `inputs` "previous_token" makes it: training is that of every transformer, with a causal mask in the
block-causal one's place, and each position is told the code of the token before it. Drawing differs: a step is one
token, and the cache is written at a position that is traced, so that all steps are one loop.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from var_jax.models.attention import xla_attention
from var_jax.models.parameters import Params
from var_jax.models.precision import Dtype, precision_for, widened
from var_jax.models.transformer import Cache, Conditioning, Transformer, TransformerConfig


def new_raster_cache(config: TransformerConfig, batch: int, dtype: Dtype) -> Cache:
    """An empty cache of every position: [D, B, L, H, K]."""
    shape = (config.depth, batch, config.pyramid.length, config.num_heads, config.head_width)
    return Cache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))


def empty_inputs(transformer: Transformer) -> jax.Array:
    """[L, W] float32: what stands at each position before a code is added; the first is never told one."""
    c = transformer.config
    codes = jnp.zeros((1, c.pyramid.length - 1, c.code_width), jnp.float32)
    rest = transformer.embed_codes(codes, slice(1, c.pyramid.length))[0]
    return jnp.concatenate([jnp.zeros((1, c.width), rest.dtype), rest])


def told(transformer: Transformer, codes_BxC: jax.Array) -> jax.Array:
    """[B, 1, W] float32: what the token before adds to the inputs of a position."""
    codes = widened(codes_BxC)
    return jnp.einsum("bc,cw->bw", codes, transformer.word_kernel, precision=precision_for(codes.dtype))[:, None]


def raster_step(
    transformer: Transformer, x_Bx1xW: jax.Array, position: jax.Array, conditioning: Conditioning, cache: Cache
) -> tuple[jax.Array, Cache]:
    """Logits [B, 1, V] float32 of the token at `position` (traced), and the cache with its keys.

    Attention is over all L places of the cache, those to come masked: the loop's shapes must not change, and a
    step is bound by reading weights and cache anyway.
    """
    stacked, of_layer = transformer._block_params()
    seen_1xL = jnp.arange(transformer.config.pyramid.length)[None] <= position

    def layer(carry: tuple[jax.Array, Cache], scanned: Params) -> tuple[tuple[jax.Array, Cache], None]:
        x, cache = carry
        index = scanned["params"]["index"]

        def attend(q: jax.Array, new_k: jax.Array, new_v: jax.Array) -> tuple[jax.Array, Cache]:
            at = (index, 0, position, 0, 0)
            grown = Cache(
                jax.lax.dynamic_update_slice(cache.k, new_k[None], at),
                jax.lax.dynamic_update_slice(cache.v, new_v[None], at),
            )
            k, v = (jax.lax.dynamic_index_in_dim(part, index, keepdims=False) for part in grown)
            return xla_attention(q, k, v, seen_1xL), grown

        return transformer._block(x, of_layer(scanned["params"]), scanned["adaln"], attend), None

    scanned = {"params": stacked, "adaln": conditioning.blocks_DxBx6xW}
    (x, cache), _ = jax.lax.scan(layer, (x_Bx1xW.astype(transformer.dtype), cache), scanned)
    return transformer.logits(x, conditioning), cache
