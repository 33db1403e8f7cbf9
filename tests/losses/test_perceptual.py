"""Perceptual losses: stored numbers, identical pictures, and what the fall-back sees and does not."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.losses.drawn import pictures, weights
from var_jax.errors import InputError
from var_jax.losses.perceptual import lpips, structure_loss

# What PyTorch 2.13 computes from `weights()` and `pictures()` by the arithmetic in test_torch_beside.py.
STORED = (0.0015297320205718279, 0.0014570689527317882)


@pytest.fixture(scope="module")
def params():
    return weights()


def test_stored_numbers(params):
    np.testing.assert_allclose(jax.jit(lpips)(params, *pictures()), STORED, rtol=1e-4)


def test_identical_pictures_are_zero_with_finite_gradients(params):
    """Also where whole feature vectors are zero, whose length has no derivative."""
    dead = params | {
        "trunk": params["trunk"] | {"conv_3": jax.tree.map(lambda x: -np.abs(x), params["trunk"]["conv_3"])}
    }
    x, y = (jnp.asarray(picture) for picture in pictures())
    run = jax.jit(jax.value_and_grad(lambda x, w: jnp.sum(lpips(w, x, y))))
    for weight in (params, dead):
        zero, at_zero = run(y, weight)
        assert zero == 0.0
        value, grads = run(x, weight)
        assert value > 0.0
        assert np.all(np.isfinite(grads)) and np.any(grads)
        assert np.abs(at_zero).max() < 1e-6 * np.abs(grads).max()  # to rounding: the two pictures are two programs


def test_too_small_a_picture_is_named(params):
    with pytest.raises(InputError, match="VGG16 needs 16 at least"):
        lpips(params, *pictures(side=8))


def test_structure_loss_by_hand():
    """A step of height 2 between the left and the right half of a 4x4 picture, against a flat one."""
    step = jnp.broadcast_to(jnp.where(jnp.arange(4) < 2, -1.0, 1.0)[None, None, :, None], (1, 4, 4, 3))
    flat = jnp.zeros((1, 4, 4, 3))
    # 4x4: one of three columns differs across; diagonals alike, over sqrt 2. 2x2: the only column does.
    level_0 = 2 / 3 + 2 * (2 / 3) / 2**0.5
    level_1 = 2 + 2 * 2 / 2**0.5
    np.testing.assert_allclose(structure_loss(step, flat), [(level_0 + level_1) / 2], rtol=1e-6)
    np.testing.assert_allclose(structure_loss(step, flat, levels=1), [level_0], rtol=1e-6)


def test_structure_loss_sees_blur_and_not_brightness():
    x, _ = (jnp.asarray(picture) for picture in pictures())
    blurred = (x + jnp.roll(x, 1, axis=2)) / 2
    loss = jax.jit(structure_loss)
    np.testing.assert_allclose(loss(x, x + 0.25), [0.0, 0.0], atol=1e-6)
    assert np.all(loss(x, blurred) > 0.2)
    grads = jax.jit(jax.grad(lambda y: jnp.sum(structure_loss(x, y))))(x)
    assert np.all(np.isfinite(grads))
