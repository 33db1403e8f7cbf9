"""Keys and batches: each picture draws from a key of its own, in batches of one size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from var_jax.errors import InputError
from var_jax.models.reproducible import new_key

LARGEST_SEED = 2**32 - 1  # keys are made of 32 bits: a larger seed would draw the same as its lower bits


def picture_keys(key: jax.Array, batch: int) -> jax.Array:
    """[B] keys: a scalar key folded with the row index; an array of keys as it is."""
    if key.ndim == 0:
        return jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(batch))
    return key


def class_keys(seed: int, labels_N: Sequence[int], indices_N: Sequence[int]) -> jax.Array:
    """[N] keys folded from seed, class and index: a picture does not depend on its neighbours in a batch.

    Raises:
      InputError: for a seed that is not from 0 to `LARGEST_SEED`.
    """
    if not 0 <= seed <= LARGEST_SEED:
        raise InputError(f"seed {seed}: expected 0 to {LARGEST_SEED}")
    key = new_key(np.uint32(seed))
    fold = lambda label, index: jax.random.fold_in(jax.random.fold_in(key, label), index)
    return jax.vmap(fold)(np.asarray(labels_N, np.uint32), np.asarray(indices_N, np.uint32))


def batches(count: int, size: int, fill: bool = False) -> Iterator[tuple[np.ndarray, int]]:
    """Row numbers in batches of one size, so that one program serves all: (rows, how many are new).

    The last batch is filled up with row 0, whose pictures the caller drops. With `fill` a single batch is filled up,
    too: a resumed command then runs the program that the unbroken one ran.
    """
    size = size if fill else min(size, count)
    for start in range(0, count, size):
        rows = np.arange(start, start + size)
        new = min(size, count - start)
        yield np.where(rows < count, rows, 0), new
