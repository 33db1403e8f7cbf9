"""Differentiable augmentation against loops in numpy, and its draws."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from var_jax.losses.augment import augmented, recoloured, shifted, with_hole

IMAGES = np.random.default_rng(0).uniform(-1, 1, (3, 6, 8, 3)).astype(np.float32)


def test_colours():
    drawn = np.float32([[0.2, -0.3, 0.0], [0.0, 2.0, 1.0], [0.5, 1.0, 1.5]])  # brightness, saturation, contrast
    expected = []
    for image, brightness, saturation, contrast in zip(IMAGES.astype(np.float64), *drawn, strict=True):
        image = image + brightness
        for row in image:
            for pixel in row:
                pixel[:] = (pixel - pixel.mean()) * saturation + pixel.mean()
        expected.append((image - image.mean()) * contrast + image.mean())
    np.testing.assert_allclose(recoloured(IMAGES, *drawn), expected, atol=1e-5)


def test_places():
    down, right = np.array([0, 2, -5]), np.array([0, -3, 1])
    expected = np.zeros_like(IMAGES)
    for index in range(3):
        for row in range(6):
            for column in range(8):
                source = row - down[index], column - right[index]
                if 0 <= source[0] < 6 and 0 <= source[1] < 8:
                    expected[index, row, column] = IMAGES[index][source]
    np.testing.assert_array_equal(shifted(jnp.asarray(IMAGES), down, right), expected)


def test_holes():
    expected = IMAGES.copy()
    expected[0, 0:1, 5:8] = 0.0
    expected[1, 2:4, 0:3] = 0.0
    expected[2, 5:6, 7:8] = 0.0
    np.testing.assert_array_equal(
        with_hole(jnp.asarray(IMAGES), np.array([-1, 2, 5]), np.array([5, 0, 7]), 2, 3), expected
    )


def test_draws_belong_to_the_key_and_to_each_picture():
    same = jnp.broadcast_to(IMAGES[:1], (4, 6, 8, 3))
    first = augmented(jax.random.key(0), same)
    np.testing.assert_array_equal(first, augmented(jax.random.key(0), same))
    assert np.any(first != augmented(jax.random.key(1), same))
    assert np.any(first[0] != first[1])
    assert first.shape == same.shape


def test_what_is_off_stays_off():
    """Without shift and hole only colours change, which keeps the order of a pixel's channels."""
    recoloured_only = augmented(jax.random.key(2), jnp.asarray(IMAGES), translation=0.0, cutout=0.0)
    np.testing.assert_array_equal(np.argmax(recoloured_only, axis=-1), np.argmax(IMAGES, axis=-1))
    holes = augmented(jax.random.key(2), jnp.asarray(IMAGES), translation=0.0, cutout=0.5)
    cut = np.all(np.asarray(holes) == 0.0, axis=-1)
    assert np.all(cut.any(axis=(1, 2)))
    np.testing.assert_array_equal(np.asarray(holes)[~cut], np.asarray(recoloured_only)[~cut])


def test_gradients_pass():
    """Everything is linear in the picture, so the gradient tells the difference exactly."""
    images, other = jnp.asarray(IMAGES), jnp.asarray(IMAGES[::-1])
    weights = jax.random.normal(jax.random.key(5), images.shape)
    judged = lambda x: jnp.sum(weights * augmented(jax.random.key(3), x))
    grads = jax.grad(judged)(images)
    np.testing.assert_allclose(judged(other) - judged(images), jnp.sum(grads * (other - images)), rtol=1e-3)
    assert np.any(grads)
