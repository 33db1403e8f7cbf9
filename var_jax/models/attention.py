"""Attention kinds: pure functions with one signature and one meaning, handed to the transformer by its backend.

An attention function takes queries that already carry the softmax scale, keys and values, and a static mask, and
returns the weighted values of each query: `attention_fn(q_BxLxHxK, k_BxLxHxK, v_BxLxHxK, mask_LxL) -> BxLxHxK`.
`plain_attention` is the form that the others are tested against, `xla_attention` runs anywhere, `cudnn_attention` on
NVIDIA GPUs, `models.splash.Splash` on TPUs.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from var_jax.models.precision import at_least_float32, precision_for, widened
from var_jax.models.recompute import ATTENTION

# Runs of queries shorter than this join the next: of 64, 100, 128 and 200 this was fastest on a CPU.
_SHORTEST_RUN = 100


class AttentionFn(Protocol):
    """The signature every attention kind has."""

    def __call__(
        self, q_BxLxHxK: jax.Array, k_BxLxHxK: jax.Array, v_BxLxHxK: jax.Array, mask_LxL: np.ndarray
    ) -> jax.Array:
        """`mask_LxL` is True where a query may look."""
        ...


def plain_attention(
    q_BxLxHxK: jax.Array, k_BxMxHxK: jax.Array, v_BxMxHxK: jax.Array, mask_LxM: np.ndarray | jax.Array | None
) -> jax.Array:
    """Attention as in a textbook, over all pairs; JAX keeps the weights for the backward pass."""
    scores = _product("blhk,bmhk->bhlm", q_BxLxHxK, k_BxMxHxK)
    if mask_LxM is not None:
        scores = jnp.where(mask_LxM, scores, -jnp.inf)
    weights = jax.nn.softmax(scores, axis=-1).astype(v_BxMxHxK.dtype)
    return _product("bhlm,bmhk->blhk", weights, v_BxMxHxK).astype(q_BxLxHxK.dtype)


def xla_attention(
    q_BxLxHxK: jax.Array, k_BxMxHxK: jax.Array, v_BxMxHxK: jax.Array, mask_LxM: np.ndarray | jax.Array | None
) -> jax.Array:
    """Attention in XLA; scores and softmax in float32, products in the inputs' type.

    Without a mask every query sees every key, however many there are; sampling uses this form, too. With a static
    mask, runs of queries are computed with no more keys than they see: of the ten scales of 256 pixels, two thirds of
    all pairs. Scores are not kept for the backward pass but made again from every row's log of its sum, whatever
    policy a block is under: all layers' would be more than all else that a training keeps.
    """
    runs = _runs(q_BxLxHxK.shape[1], k_BxMxHxK.shape[1], mask_LxM)
    by_heads = lambda *arrays: tuple(jnp.swapaxes(x, 1, 2) for x in arrays)

    @jax.custom_vjp
    def attend(*qkv: jax.Array) -> tuple[jax.Array, jax.Array]:
        q, k, v = by_heads(*qkv)
        parts = [
            _attend(q[:, :, run.start : run.stop], k[:, :, : run.seen], v[:, :, : run.seen], run.mask) for run in runs
        ]
        out, log_sums = (jnp.concatenate(part, axis=2) for part in zip(*parts, strict=True))
        return by_heads(out)[0], log_sums

    def forward(*qkv: jax.Array) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, ...]]:
        # As one whole: a policy that keeps products would find the scores in `attend`'s own operations.
        found = tuple(checkpoint_name(x, ATTENTION) for x in attend(*qkv))
        return found, (*qkv, *found)

    def backward(kept: tuple[jax.Array, ...], grads: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, ...]:
        *qkv_and_out, log_sums = kept
        q, k, v, out, grad = by_heads(*qkv_and_out, grads[0])
        dq, dk, dv = [], 0.0, 0.0
        for run in runs:
            rows = tuple(x[:, :, run.start : run.stop] for x in (q, out, log_sums, grad))
            dq_run, *others = _attend_backward(*rows, k[:, :, : run.seen], v[:, :, : run.seen], run.mask)
            unseen = ((0, 0), (0, 0), (0, k.shape[2] - run.seen), (0, 0))
            dk, dv = (total + jnp.pad(x, unseen) for total, x in zip((dk, dv), others, strict=True))
            dq.append(dq_run)
        return by_heads(jnp.concatenate(dq, axis=2), dk.astype(k.dtype), dv.astype(v.dtype))

    attend.defvjp(forward, backward)
    return attend(q_BxLxHxK, k_BxMxHxK, v_BxMxHxK)[0]


class _Run(NamedTuple):
    """Queries from `start` to `stop`, the number of first keys that hold all they see, and the mask of these pairs."""

    start: int
    stop: int
    seen: int
    mask: np.ndarray | jax.Array | None


def _runs(queries: int, keys: int, mask_LxM: np.ndarray | jax.Array | None) -> list[_Run]:
    """Queries in runs that end where later ones see further; short ones are joined, since each has its own products."""
    if not isinstance(mask_LxM, np.ndarray):
        return [_Run(0, queries, keys, mask_LxM)]
    seen_L = keys - np.argmax(mask_LxM[:, ::-1], axis=1)
    runs, start = [], 0
    for stop in (*np.flatnonzero(np.diff(seen_L)) + 1, queries):
        if stop - start >= _SHORTEST_RUN or stop == queries:
            seen = int(seen_L[start:stop].max())
            mask = mask_LxM[start:stop, :seen]
            runs.append(_Run(start, int(stop), seen, None if mask.all() else mask))
            start = int(stop)
    return runs


def _scores(q_BxHxlxK: jax.Array, k_BxHxmxK: jax.Array, mask_lxm: np.ndarray | jax.Array | None) -> jax.Array:
    """[B, H, l, m] float32, minus infinity where a query may not look."""
    scores = _product("bhlk,bhmk->bhlm", q_BxHxlxK, k_BxHxmxK)
    return scores if mask_lxm is None else jnp.where(mask_lxm, scores, -jnp.inf)


def _attend(
    q_BxHxlxK: jax.Array, k_BxHxmxK: jax.Array, v_BxHxmxK: jax.Array, mask_lxm: np.ndarray | jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """What queries collect [B, H, l, K], and the log of every row's sum of exponentials [B, H, l] float32."""
    scores = _scores(q_BxHxlxK, k_BxHxmxK, mask_lxm)
    largest = jnp.max(scores, axis=-1, keepdims=True)
    weights = jnp.exp(scores - largest)
    sums = jnp.sum(weights, axis=-1, keepdims=True)
    out = _product("bhlm,bhmk->bhlk", weights.astype(v_BxHxmxK.dtype), v_BxHxmxK) / sums
    return out.astype(q_BxHxlxK.dtype), (largest + jnp.log(sums))[..., 0]


def _attend_backward(
    q_BxHxlxK: jax.Array,
    out_BxHxlxK: jax.Array,
    log_sums_BxHxl: jax.Array,
    grad_BxHxlxK: jax.Array,
    k_BxHxmxK: jax.Array,
    v_BxHxmxK: jax.Array,
    mask_lxm: np.ndarray | jax.Array | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of queries, in their type, and of keys and values, in float32."""
    dtype = q_BxHxlxK.dtype
    weights = jnp.exp(_scores(q_BxHxlxK, k_BxHxmxK, mask_lxm) - log_sums_BxHxl[..., None])
    dv = _product("bhlm,bhlk->bhmk", weights.astype(dtype), grad_BxHxlxK)
    own = jnp.sum(widened(grad_BxHxlxK) * widened(out_BxHxlxK), axis=-1, keepdims=True)
    dscores = (weights * (_product("bhlk,bhmk->bhlm", grad_BxHxlxK, v_BxHxmxK) - own)).astype(dtype)
    dq = _product("bhlm,bhmk->bhlk", dscores, k_BxHxmxK)
    return dq.astype(dtype), _product("bhlm,bhlk->bhmk", dscores, q_BxHxlxK), dv


def _product(equation: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """In the type of the factors, summed up in float32 or wider."""
    return jnp.einsum(
        equation, a, b, precision=precision_for(a.dtype), preferred_element_type=at_least_float32(a.dtype)
    )


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
