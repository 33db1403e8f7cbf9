"""Attention kinds: pure functions with one signature and one meaning, handed to the transformer by its backend.

An attention function takes queries that already carry the softmax scale, keys and values, and a static mask, and
returns the weighted values of each query: `attention_fn(q_BxLxHxK, k_BxLxHxK, v_BxLxHxK, mask_LxL) -> BxLxHxK`.
`plain_attention` is the form that the others are tested against, `xla_attention` runs anywhere, `cudnn_attention` on
NVIDIA GPUs, `models.splash.Splash` on TPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

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
        self, q_BxLxHxK: jax.Array, k_BxLxHxK: jax.Array, v_BxLxHxK: jax.Array, mask_LxL: np.ndarray, /
    ) -> jax.Array:
        """`mask_LxL` is True where a query may look."""
        ...


def plain_attention(
    q_BxLxHxK: jax.Array, k_BxMxHxK: jax.Array, v_BxMxHxK: jax.Array, mask_LxM: np.ndarray | jax.Array | None
) -> jax.Array:
    """Attention as in a textbook, over all pairs; JAX keeps the weights for the backward pass."""
    q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q_BxLxHxK, k_BxMxHxK, v_BxMxHxK))
    weights = jax.nn.softmax(_scores(q, k, mask_LxM), axis=-1).astype(v.dtype)
    return jnp.swapaxes(_product("bhlm,bhmk->bhlk", weights, v).astype(q.dtype), 1, 2)


def xla_attention(
    q_BxLxHxK: jax.Array, k_BxMxHxK: jax.Array, v_BxMxHxK: jax.Array, mask_LxM: np.ndarray | jax.Array | None
) -> jax.Array:
    """Attention in XLA; scores and softmax in float32, products in the inputs' type.

    Without a mask every query sees every key, however many there are; sampling uses this form, too. With a static
    mask, runs of queries are computed with no more keys than they see: of the ten scales of 256 pixels, two thirds of
    all pairs. The backward pass computes the weights again from each query's log of its sum, whatever policy a block is
    under: the scores of all layers would take more memory than everything else that a training keeps.
    """
    runs = _runs(q_BxLxHxK.shape[1], k_BxMxHxK.shape[1], mask_LxM)

    @jax.custom_vjp
    def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, ...]:
        return _by_runs(runs, _attend, q, k, v)

    # As `jax.checkpoint` would, but closed to a block's policy, which would find the scores among the products to keep.
    def forward(*qkv: jax.Array) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
        out, log_sums = (checkpoint_name(x, ATTENTION) for x in attend(*qkv))
        return (out, log_sums), (*qkv, out, log_sums)

    def backward(saved: tuple[jax.Array, ...], grads: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        q, k, v, out, log_sums = saved
        # Raising a score raises its query's sum, which all weights of the query are divided by.
        by_sum = -jnp.sum(widened(grads[0]) * widened(out), axis=-1)
        weighted = lambda q, k, v: _by_runs(runs, _weighted, q, k, v, log_sums)
        # Keys and values are seen by several runs, whose gradients are summed up in float32.
        dq, dk, dv = jax.vjp(weighted, q, widened(k), widened(v))[1]((grads[0], by_sum))
        return dq, dk.astype(k.dtype), dv.astype(v.dtype)

    attend.defvjp(forward, backward)
    return jnp.swapaxes(attend(*(jnp.swapaxes(x, 1, 2) for x in (q_BxLxHxK, k_BxMxHxK, v_BxMxHxK)))[0], 1, 2)


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


def _by_runs(
    runs: Sequence[_Run],
    kind: Callable[..., tuple[jax.Array, ...]],
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *sums: Any,
) -> tuple[jax.Array, ...]:
    """`kind` of each run of queries with the keys that it sees, joined; all are [B, H, L, ...]."""
    parts = []
    for run in runs:
        of_queries = [x[:, :, run.start : run.stop] for x in (q, *sums)]
        parts.append(kind(*of_queries, k[:, :, : run.seen], v[:, :, : run.seen], run.mask))
    return tuple(jnp.concatenate(part, axis=2) for part in zip(*parts, strict=True))


def _attend(
    q: jax.Array, k: jax.Array, v: jax.Array, mask: np.ndarray | jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Attention of [B, H, L, K], and the log of each query's sum of exponentials [B, H, L] float32.

    The sums are divided out after the product with the values, where there is less to divide.
    """
    scores = _scores(q, k, mask)
    largest = jnp.max(scores, axis=-1, keepdims=True)
    weights = jnp.exp(scores - largest)
    sums = jnp.sum(weights, axis=-1, keepdims=True)
    out = (_product("bhlm,bhmk->bhlk", weights.astype(v.dtype), v) / sums).astype(q.dtype)
    return out, (largest + jnp.log(sums))[..., 0]


def _weighted(
    q: jax.Array, log_sums: jax.Array, k: jax.Array, v: jax.Array, mask: np.ndarray | jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """`_attend` by known sums, and each query's sum of weights, which is one and has a gradient."""
    weights = jnp.exp(_scores(q, k.astype(q.dtype), mask) - log_sums[..., None])
    return _product("bhlm,bhmk->bhlk", weights.astype(q.dtype), v.astype(q.dtype)).astype(q.dtype), weights.sum(-1)


def _scores(q: jax.Array, k: jax.Array, mask: np.ndarray | jax.Array | None) -> jax.Array:
    """[B, H, L, M] float32, minus infinity where a query may not look."""
    scores = _product("bhlk,bhmk->bhlm", q, k)
    return scores if mask is None else jnp.where(mask, scores, -jnp.inf)


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
    q, k, v = (jnp.pad(x, ((0, 0), (0, odd), (0, 0), (0, 0))) for x in (q_BxLxHxK, k_BxLxHxK, v_BxLxHxK))
    mask = np.pad(mask_LxL, ((0, odd), (0, 0)), mode="edge")
    mask = np.pad(mask, ((0, 0), (0, odd)))[None, None]
    out = jax.nn.dot_product_attention(q, k, v, mask=jnp.asarray(mask), scale=1.0, implementation="cudnn")
    return out[:, :length]
