"""Adversarial losses against values by hand, and the balance of the two sides."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from var_jax.errors import InputError
from var_jax.losses.adversarial import (
    Anchors,
    adaptive_weight,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    lecam_penalty,
    moved_anchors,
    new_anchors,
    ramp,
)

REAL, FAKE = jnp.array([[2.0, 0.5], [-1.0, 1.0]]), jnp.array([[-2.0, 0.0], [1.0, -0.5]])


def test_hinge_by_hand():
    # relu(1 - real) = 0, .5, 2, 0; relu(1 + fake) = 0, 1, 2, .5
    np.testing.assert_allclose(discriminator_loss("hinge", REAL, FAKE), 0.5 * (2.5 / 4 + 3.5 / 4), rtol=1e-6)
    np.testing.assert_allclose(generator_loss("hinge", FAKE), 1.5 / 4, rtol=1e-6)


def test_non_saturating_by_hand():
    real, fake = (np.asarray(x, np.float64) for x in (REAL, FAKE))
    judged = np.mean(-np.log(1 / (1 + np.exp(-real)))) + np.mean(-np.log(1 - 1 / (1 + np.exp(-fake))))
    np.testing.assert_allclose(discriminator_loss("non_saturating", REAL, FAKE), judged, rtol=1e-5)
    made = np.mean(-np.log(1 / (1 + np.exp(-fake))))
    np.testing.assert_allclose(generator_loss("non_saturating", FAKE), made, rtol=1e-5)
    assert np.isfinite(generator_loss("non_saturating", jnp.array([-1e4])))


def test_an_unknown_loss_is_named():
    for call in (lambda: discriminator_loss("wgan", REAL, FAKE), lambda: generator_loss("wgan", FAKE)):
        with pytest.raises(InputError, match="adversarial loss 'wgan': expected one of hinge, non_saturating"):
            call()


def test_adaptive_weight():
    reconstruction, adversarial = jnp.array([3.0, 4.0]), jnp.array([[0.0], [2.0]])
    np.testing.assert_allclose(adaptive_weight(reconstruction, adversarial), 2.5, rtol=1e-5)
    np.testing.assert_allclose(adaptive_weight(reconstruction, 0 * adversarial), 1e4)
    np.testing.assert_allclose(adaptive_weight(0 * reconstruction, adversarial, low=0.015), 0.015)
    grads = jax.grad(lambda x: adaptive_weight(x, adversarial) * jnp.sum(x))(reconstruction)
    np.testing.assert_allclose(grads, [2.5, 2.5], rtol=1e-5)  # the weight itself is a constant
    assert np.all(np.isfinite(jax.grad(lambda x: adaptive_weight(x, 0 * adversarial))(0 * reconstruction)))


def test_ramp():
    np.testing.assert_allclose([ramp(step, 10, 4) for step in (0, 9, 10, 11, 13, 14, 99)], [0, 0, 0.25, 0.5, 1, 1, 1])
    np.testing.assert_allclose([ramp(step, 3, 0) for step in (2, 3, 4)], [0, 1, 1])


def test_gradient_penalty_of_a_function_with_a_known_gradient():
    images = jax.random.normal(jax.random.key(0), (3, 4, 4, 3))
    weights = jax.random.normal(jax.random.key(1), (4, 4, 3))

    def discriminate(images):  # per picture: two logits, 1/2 w.x^2 and 3 sum(x)
        return jnp.stack([0.5 * jnp.sum(weights * images**2, (1, 2, 3)), 3.0 * jnp.sum(images, (1, 2, 3))], axis=1)

    expected = np.mean(np.sum(np.square((np.asarray(weights * images) + 3.0) / 2), axis=(1, 2, 3)))
    np.testing.assert_allclose(gradient_penalty(discriminate, images), expected, rtol=1e-5)
    learned = jax.grad(lambda scale: gradient_penalty(lambda x: scale * discriminate(x), images))(1.0)
    np.testing.assert_allclose(learned, 2 * expected, rtol=1e-5)  # the penalty grows with the square


def test_lecam_by_hand():
    anchors = Anchors(jnp.float32(1.0), jnp.float32(-0.5), jnp.int32(7))
    real, fake = jnp.array([0.0, 0.5]), jnp.array([2.0, -1.0])
    np.testing.assert_allclose(lecam_penalty(anchors, real, fake), 0.75**2 + 0.5**2, rtol=1e-6)
    np.testing.assert_allclose(lecam_penalty(anchors, real - 2.0, fake + 2.0), 0.0)
    np.testing.assert_allclose(lecam_penalty(new_anchors(), real, fake), 0.0)
    grads = jax.grad(lambda real: lecam_penalty(anchors, real, fake))(real)
    np.testing.assert_allclose(grads, [0.75, 0.75], rtol=1e-6)


def test_anchors_move():
    anchors = moved_anchors(new_anchors(), jnp.float32(2.0), jnp.float32(-3.0), decay=0.6)
    np.testing.assert_allclose(anchors[:2], [2.0, -3.0])
    anchors = moved_anchors(anchors, jnp.float32(4.0), jnp.float32(-3.0), decay=0.6)  # the mean of both
    np.testing.assert_allclose(anchors.real, 3.0)
    anchors = moved_anchors(anchors, jnp.float32(0.0), jnp.float32(-3.0), decay=0.6)  # from here the decay
    np.testing.assert_allclose(anchors.real, 1.8, rtol=1e-6)
    np.testing.assert_allclose(anchors.fake, -3.0, rtol=1e-6)
    assert int(anchors.updates) == 3
