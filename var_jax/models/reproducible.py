"""What makes numbers the same everywhere: the settings of JAX that they depend on, and keys that no setting changes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax
import numpy as np

_KIND = "threefry2x32"  # of keys; with others (rbg) a row of a batch depends on the number of rows


def new_key(seed: int | np.integer | jax.Array) -> jax.Array:
    """`jax.random.key(seed)`, of the same kind whatever JAX_DEFAULT_PRNG_IMPL says."""
    return jax.random.key(seed, impl=_KIND)


def same_kind(key: jax.Array) -> jax.Array:
    """A key, or an array of keys, of any kind as `new_key` makes them: one from `jax.random.key` becomes its equal."""
    if key.dtype == jax.eval_shape(lambda: new_key(0)).dtype:
        return key
    return jax.random.wrap_key_data(jax.random.key_data(key)[..., :2], impl=_KIND)


@contextlib.contextmanager
def own_settings() -> Iterator[None]:
    """Inside, JAX draws and broadcasts as this package expects, whatever the environment says; also a decorator."""
    with jax.threefry_partitionable(True), jax.numpy_rank_promotion("allow"):
        yield
