"""Discriminators: shapes, independence of the batch, the blur against numpy, and that they learn."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from var_jax.errors import InputError
from var_jax.losses.adversarial import discriminator_loss, gradient_penalty
from var_jax.losses.discriminator import FeatureDiscriminator, PatchDiscriminator, ResidualDiscriminator, blur_halved

MODULES = {
    "patch": PatchDiscriminator(channels=8, levels=2, norm_groups=4),
    "residual": ResidualDiscriminator(channels=8, most_channels=16),
}
IMAGES = jax.random.uniform(jax.random.key(0), (4, 16, 16, 3), minval=-1.0, maxval=1.0)
EACH = pytest.mark.parametrize("name", MODULES)


@functools.cache
def started(name):
    """A discriminator, compiled, and its parameters."""
    module = MODULES[name]
    return module, jax.jit(module.apply), jax.jit(module.init)(jax.random.key(1), IMAGES)


@EACH
def test_a_picture_is_judged_by_itself(name):
    _, run, params = started(name)
    logits = run(params, IMAGES)
    assert logits.shape == {"patch": (4, 4, 4), "residual": (4,)}[name]
    assert logits.dtype == jnp.float32
    alone = run(params, IMAGES[2:3])
    np.testing.assert_allclose(alone[0], logits[2], rtol=1e-4, atol=1e-5)


@EACH
def test_it_learns_to_tell_blurred_from_sharp_with_its_gradients_held_small(name):
    module, run, params = started(name)
    fake = (IMAGES + jnp.roll(IMAGES, 1, 1) + jnp.roll(IMAGES, 1, 2)) / 3
    optimizer = optax.adam(3e-3)

    @jax.jit
    def step(params, state):
        def loss(params):
            judge = lambda images: module.apply(params, images)
            penalty = gradient_penalty(judge, IMAGES)
            return discriminator_loss("non_saturating", judge(IMAGES), judge(fake)) + 1e-3 * penalty

        value, grads = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, value

    state = optimizer.init(params)
    for _ in range(40):
        params, state, value = step(params, state)
    assert float(value) < 0.7  # 1.39 is what guessing costs
    assert np.mean(run(params, IMAGES)) > np.mean(run(params, fake))


def test_features_are_judged_by_heads_of_their_own():
    module = FeatureDiscriminator(norm_groups=4)
    features = [jax.random.normal(jax.random.key(n), (3, 12, 8)) for n in range(2)]
    params, run = module.init(jax.random.key(5), features), jax.jit(module.apply)
    logits = run(params, features)
    assert logits.shape == (3, 24)
    np.testing.assert_allclose(run(params, [f[1:2] for f in features])[0], logits[1], rtol=1e-4, atol=1e-5)
    changed = run(params, [features[0], -features[1]])
    np.testing.assert_array_equal(changed[:, :12], logits[:, :12])
    assert np.all(changed[:, 12:] != logits[:, 12:])
    # Along the tokens the ends meet: turning them turns the logits.
    turned = run(params, [jnp.roll(f, 5, axis=1) for f in features])
    np.testing.assert_allclose(turned[:, :12], jnp.roll(logits[:, :12], 5, axis=1), rtol=1e-3, atol=1e-4)
    with pytest.raises(InputError, match="features of width 8 do not divide into norm_groups 32"):
        FeatureDiscriminator().init(jax.random.key(0), features)


@pytest.mark.parametrize("taps", [(1.0, 2.0, 1.0), (1.0, 3.0, 3.0, 1.0)])
def test_blur(taps):
    x = np.random.default_rng(0).standard_normal((2, 6, 8, 3))
    weights = np.outer(taps, taps) / sum(taps) ** 2
    expected = np.zeros((2, 3, 4, 3))
    for row in range(3):
        for column in range(4):
            for i in range(len(taps)):
                for j in range(len(taps)):
                    source = np.clip([2 * row + i - 1, 2 * column + j - 1], 0, [5, 7])
                    expected[:, row, column] += weights[i, j] * x[:, source[0], source[1]]
    np.testing.assert_allclose(blur_halved(jnp.asarray(x, jnp.float32), taps), expected, atol=1e-5)


def test_what_cannot_be_is_named():
    with pytest.raises(InputError, match=r"pictures of \(12, 12\) pixels cannot be halved 3 times"):
        PatchDiscriminator(levels=3).init(jax.random.key(0), jnp.zeros((1, 12, 12, 3)))
    with pytest.raises(InputError, match="discriminator width 48 does not divide into norm_groups 32"):
        PatchDiscriminator(channels=48).init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))


def test_published_sizes():
    """At 256 px: the shapes without computing anything."""
    images = jax.ShapeDtypeStruct((2, 256, 256, 3), jnp.float32)
    for module, shape in ((PatchDiscriminator(), (2, 32, 32)), (ResidualDiscriminator(), (2,))):
        logits, _ = jax.eval_shape(module.init_with_output, jax.random.key(0), images)
        assert logits.shape == shape
