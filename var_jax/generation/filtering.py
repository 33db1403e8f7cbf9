"""Filtering of logits by top-k and top-p, and the draw.

Both limits are thresholds on the logits, found exactly by deciding the bits of the threshold from
the highest down: 32 passes of counting, against a full sort of the vocabulary that costs an order of
magnitude more. Ties at a threshold stay. k and p may be traced: changing them recompiles nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

_BITS = 32


def filter_logits(logits_xV: jax.Array, top_k: jax.Array | int, top_p: jax.Array | float) -> jax.Array:
    """Logits [..., V] float32, with -inf for every token that may not be drawn.

    Args:
      logits_xV: float32.
      top_k: keep the k largest and all equal to the k-th; 0, or V and more, keeps all.
      top_p: then drop the tail whose probabilities, added from the smallest up, stay within 1 - p;
        the largest always stays; 0, or 1 and more, keeps all.
    """
    top_k, top_p = jnp.asarray(top_k, jnp.int32), jnp.asarray(top_p, jnp.float32)
    vocabulary = logits_xV.shape[-1]
    logits_xV = jax.lax.cond(
        (top_k > 0) & (top_k < vocabulary), lambda x: _keep_top_k(x, top_k), lambda x: x, logits_xV
    )
    return jax.lax.cond((top_p > 0) & (top_p < 1), lambda x: _keep_top_p(x, top_p), lambda x: x, logits_xV)


def _keep_top_k(logits_xV: jax.Array, k: jax.Array) -> jax.Array:
    ordered = _ordered_bits(logits_xV)
    # The k-th largest is the largest threshold that k values still reach.
    threshold = _largest(lambda t: jnp.sum(ordered >= t, axis=-1, keepdims=True, dtype=jnp.int32) >= k, ordered)
    return jnp.where(ordered >= threshold, logits_xV, -jnp.inf)


def _keep_top_p(logits_xV: jax.Array, p: jax.Array) -> jax.Array:
    ordered = _ordered_bits(logits_xV)
    probabilities = jax.nn.softmax(logits_xV, axis=-1)

    def within_tail(t: jax.Array) -> jax.Array:
        below = jnp.sum(jnp.where(ordered < t, probabilities, 0.0), axis=-1, keepdims=True)
        return below <= 1.0 - p

    threshold = jnp.minimum(_largest(within_tail, ordered), jnp.max(ordered, axis=-1, keepdims=True))
    return jnp.where(ordered >= threshold, logits_xV, -jnp.inf)


def _largest(holds: Callable[[jax.Array], jax.Array], like_xV: jax.Array) -> jax.Array:
    """[..., 1] uint32: the largest t of which `holds`, true from 0 up to some t, is still true."""

    def decide_bit(step: jax.Array, t: jax.Array) -> jax.Array:
        candidate = t | (jnp.uint32(1) << jnp.asarray(_BITS - 1 - step, jnp.uint32))
        return jnp.where(holds(candidate), candidate, t)

    return jax.lax.fori_loop(0, _BITS, decide_bit, jnp.zeros((*like_xV.shape[:-1], 1), jnp.uint32))


def _ordered_bits(x: jax.Array) -> jax.Array:
    """uint32 in the order of the float32 values (IEEE bits, the negative half turned round)."""
    bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32) + 0.0, jnp.int32)  # + 0 joins the two zeros
    bits = jnp.where(bits < 0, bits ^ jnp.int32(0x7FFFFFFF), bits)
    return jax.lax.bitcast_convert_type(bits, jnp.uint32) ^ jnp.uint32(1 << (_BITS - 1))


def draw(keys_B: jax.Array, logits_BxlxV: jax.Array) -> jax.Array:
    """One token [B, l] int32 for each position from softmax(logits); row b depends on keys_B[b] alone.

    Inverts the cumulative sum at one uniform number per position, in two levels (blocks of about
    sqrt(V), then within the block), because a cumulative sum over a whole vocabulary is slow.
    A token whose logit is -inf is never drawn.
    """
    batch, length, vocabulary = logits_BxlxV.shape
    weights = jnp.exp(logits_BxlxV - jnp.max(logits_BxlxV, axis=-1, keepdims=True))
    block = max(1, round(vocabulary**0.5))
    weights = jnp.pad(weights, ((0, 0), (0, 0), (0, -vocabulary % block))).reshape(batch, length, -1, block)
    ends = jnp.cumsum(jnp.sum(weights, axis=-1), axis=-1)
    uniform = jax.vmap(lambda key: jax.random.uniform(key, (length,), jnp.float32))(keys_B)
    target = _below(uniform[..., None] * ends[..., -1:], ends[..., -1:])
    chosen = jnp.sum(ends <= target, axis=-1, keepdims=True)
    before = jnp.where(chosen > 0, jnp.take_along_axis(ends, jnp.maximum(chosen - 1, 0), axis=-1), 0.0)
    row = jnp.take_along_axis(weights, chosen[..., None], axis=-2)[..., 0, :]
    within = jnp.sum(jnp.cumsum(row, axis=-1) <= target - before, axis=-1)
    # The two levels round differently: past the block's end means its last token that has weight.
    last = block - 1 - jnp.argmax(row[..., ::-1] > 0, axis=-1)
    return (chosen[..., 0] * block + jnp.minimum(within, last)).astype(jnp.int32)


def _below(x: jax.Array, limit: jax.Array) -> jax.Array:
    """x, but less than `limit` (positive) even where rounding made them equal."""
    return jnp.minimum(x, jnp.nextafter(limit, jnp.zeros_like(limit)))
