"""Keys and batches of many pictures."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from var_jax.errors import InputError
from var_jax.generation.batching import LARGEST_SEED, batches, class_keys


def bits(keys):
    return [tuple(row) for row in np.asarray(jax.random.key_data(keys)).tolist()]


def test_a_key_follows_from_seed_class_and_index_alone():
    keys = bits(class_keys(7, [3, 3, 9], [0, 1, 0]))
    assert len(set(keys)) == 3
    assert bits(class_keys(7, [9, 5, 3], [0, 0, 1])) == [keys[2], bits(class_keys(7, [5], [0]))[0], keys[1]]
    assert bits(class_keys(8, [3], [0]))[0] not in keys
    by_hand = jax.random.fold_in(jax.random.fold_in(jax.random.key(7), 9), 0)
    assert keys[2] == tuple(np.asarray(jax.random.key_data(by_hand)).tolist())


def test_class_and_index_are_not_mixed_up():
    assert bits(class_keys(0, [1], [2])) != bits(class_keys(0, [2], [1]))


def test_every_seed_draws_its_own():
    seeds = (0, 1, 2**31, LARGEST_SEED)
    assert len({bits(class_keys(seed, [0], [0]))[0] for seed in seeds}) == len(seeds)
    for seed in (-1, LARGEST_SEED + 1, 10**30):
        with pytest.raises(InputError, match=f"seed {seed}: expected 0 to {LARGEST_SEED}"):
            class_keys(seed, [0], [0])


@pytest.mark.parametrize(("count", "size"), [(1, 1), (5, 2), (6, 3), (3, 8), (8, 8)])
def test_batches_are_of_one_size_and_cover_everything_once(count, size):
    taken = list(batches(count, size))
    assert {len(rows) for rows, _ in taken} == {min(size, count)}
    assert [row for rows, new in taken for row in rows[:new]] == list(range(count))
    assert all(row == 0 for rows, new in taken for row in rows[new:])


def test_a_single_batch_is_filled_up_where_asked():
    ((rows, new),) = batches(3, 8, fill=True)
    assert (rows.tolist(), new) == ([0, 1, 2, 0, 0, 0, 0, 0], 3)
