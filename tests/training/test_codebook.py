"""What keeps a codebook alive, against loops in numpy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from var_jax.errors import InputError
from var_jax.pyramid import Pyramid
from var_jax.training.codebook import (
    MovingCodes,
    fair_weights,
    kept_scales,
    moved_codes,
    new_moving_codes,
    revived,
    warm_start,
)

PYRAMID = Pyramid((1, 2, 4))
CODES = jax.random.normal(jax.random.key(0), (6, 3))
ASKED = jax.random.normal(jax.random.key(1), (42, 3))


def test_every_scale_gets_the_same_share():
    weights = fair_weights(PYRAMID, 2).reshape(2, 21)
    for k in range(3):
        np.testing.assert_allclose(weights[:, PYRAMID.slice(k)].sum(), 1 / 3, rtol=1e-6)
    assert len(np.unique(weights[0])) == 3


def test_kept_scales():
    kept = np.asarray(kept_scales(jax.random.key(0), 20_000, Pyramid((1, 2, 3, 4, 5)), 0.4, 3))
    for number, share in ((3, 0.2), (4, 0.2), (5, 0.6)):
        assert abs(np.mean(kept == number) - share) < 0.02
    assert set(kept) == {3, 4, 5}
    np.testing.assert_array_equal(kept_scales(jax.random.key(0), 4, PYRAMID, 0.0, 1), 3)
    with pytest.raises(InputError, match="quantizer dropout of 0.1 down to 3 scales: expected a share, and 1 to 2"):
        kept_scales(jax.random.key(0), 4, PYRAMID, 0.1, 3)


def test_dead_codes_move_to_what_is_asked_and_others_stay():
    uses = jnp.array([10.0, 0.0, 3.0, 0.4, 50.0, 0.0])  # a tenth of the mean is 1.06
    weights = np.zeros(42, np.float32)
    weights[[5, 7]] = 0.5
    codes, dead = revived(CODES, uses, ASKED, jnp.asarray(weights), jax.random.key(2), share=0.1)
    np.testing.assert_array_equal(dead, [False, True, False, True, False, True])
    np.testing.assert_array_equal(codes[~dead], CODES[~dead])
    for code in np.asarray(codes)[np.asarray(dead)]:
        assert any(np.array_equal(code, ASKED[row]) for row in (5, 7))


def test_moving_codes_by_hand():
    moving = MovingCodes(jnp.array([2.0, 1.0, 0.5]), jnp.array([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0]]))
    tokens, asked = jnp.array([0, 0, 1, 3]), jnp.array([[4.0, 0.0], [0.0, 4.0], [1.0, 1.0], [9.0, 9.0]])
    codes, after = moved_codes(moving, tokens, asked, decay=0.5, smoothing=0.1)
    np.testing.assert_allclose(after.uses_V, [2.0, 1.0, 0.25])  # the last token stands for none
    np.testing.assert_allclose(after.sums_VxC, [[3.0, 2.0], [0.5, 2.0], [0.5, 0.5]])
    smooth = (np.array([2.0, 1.0, 0.25]) + 0.1) / (3.25 + 0.3) * 3.25
    np.testing.assert_allclose(codes, np.asarray(after.sums_VxC) / smooth[:, None], rtol=1e-6)


def test_moving_codes_settle_on_the_means_of_what_they_answer():
    moving = new_moving_codes(CODES)
    tokens = jnp.arange(42) % 6
    for _ in range(200):
        codes, moving = moved_codes(moving, tokens, ASKED, decay=0.9)
    means = [np.mean(np.asarray(ASKED)[np.arange(42) % 6 == code], axis=0) for code in range(6)]
    np.testing.assert_allclose(codes, means, atol=1e-4)


def test_warm_start_finds_separate_heaps():
    """Two heaps of very different size and, by weight, the same importance."""
    rng = np.random.default_rng(0)
    heaps = np.concatenate([rng.normal(5, 0.1, (200, 3)), rng.normal(-5, 0.1, (4, 3))]).astype(np.float32)
    weights = np.concatenate([np.full(200, 0.5 / 200), np.full(4, 0.5 / 4)]).astype(np.float32)
    codes = np.asarray(warm_start(jnp.asarray(heaps), jnp.asarray(weights), 8, jax.random.key(0), rounds=5))
    assert np.all(np.abs(np.abs(codes) - 5) < 0.5)
    assert 2 <= np.sum(codes[:, 0] < 0) <= 6
    one = warm_start(jnp.asarray(heaps), jnp.asarray(weights), 1, jax.random.key(0), rounds=1)
    np.testing.assert_allclose(one[0], weights @ heaps, atol=1e-4)  # the weighted mean of all
    many = warm_start(jnp.asarray(heaps[:5]), jnp.full(5, 0.2), 9, jax.random.key(1), rounds=2)
    assert many.shape == (9, 3)
    assert np.all(np.isfinite(many))
