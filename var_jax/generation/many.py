"""Many pictures by class: which keys they are drawn from, and in what batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import jax
import numpy as np

from var_jax.errors import InputError

LARGEST_SEED = 2**32 - 1  # keys are made of 32 bits: a larger seed would draw what its lower bits draw


def class_keys(seed: int, labels_N: Sequence[int], indices_N: Sequence[int]) -> jax.Array:
    """[N] keys folded from seed, class and index: a picture does not depend on what else is drawn.

    Raises:
      InputError: for a seed that is not from 0 to `LARGEST_SEED`.
    """
    if not 0 <= seed <= LARGEST_SEED:
        raise InputError(f"seed {seed}: expected 0 to {LARGEST_SEED}")
    key = jax.random.key(np.uint32(seed))
    fold = lambda label, index: jax.random.fold_in(jax.random.fold_in(key, label), index)
    return jax.vmap(fold)(np.asarray(labels_N, np.uint32), np.asarray(indices_N, np.uint32))


def batches(count: int, size: int, fill: bool = False) -> Iterator[tuple[np.ndarray, int]]:
    """Row numbers in batches of one size, so that one program serves all: (rows, how many are new).

    The last batch is filled up with row 0; what is drawn for those is to be dropped. With `fill` a single
    batch is, too: a resumed command then runs the program that the unbroken one ran.
    """
    size = size if fill else min(size, count)
    for start in range(0, count, size):
        rows = np.arange(start, start + size)
        new = min(size, count - start)
        yield np.where(rows < count, rows, 0), new
