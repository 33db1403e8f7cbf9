"""PSNR and SSIM by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from var_jax.evaluation.reconstruction import psnr, ssim


def test_psnr_by_hand():
    a = jnp.zeros((2, 4, 4, 3))
    b = jnp.stack([jnp.full((4, 4, 3), 0.1), jnp.zeros((4, 4, 3))])
    np.testing.assert_allclose(psnr(a, b), [20.0, 100.0], rtol=1e-4)


def test_ssim_bounds_and_luminance_term():
    x = jax.random.uniform(jax.random.key(0), (2, 16, 16, 3))
    np.testing.assert_allclose(ssim(x, x), 1.0, rtol=1e-5)
    assert np.all(ssim(x, 1 - x) < 0)
    flat_a, flat_b = jnp.full((1, 16, 16, 3), 0.2), jnp.full((1, 16, 16, 3), 0.6)
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)  # no variance: the luminance term alone
    np.testing.assert_allclose(ssim(flat_a, flat_b), expected, rtol=1e-3)


def test_ssim_beside_a_plain_double_loop():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 13, 12)), rng.random((2, 13, 12))
    offsets = np.arange(11) - 5
    w = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    w /= w.sum()
    values = []
    for y in range(3):
        for x in range(2):
            p, q = a[0, y : y + 11, x : x + 11], b[0, y : y + 11, x : x + 11]
            mp, mq = (w * p).sum(), (w * q).sum()
            vp, vq, c = (w * p * p).sum() - mp**2, (w * q * q).sum() - mq**2, (w * p * q).sum() - mp * mq
            values.append((2 * mp * mq + 1e-4) * (2 * c + 9e-4) / ((mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4)))
    grey = lambda z: jnp.asarray(np.repeat(z[:1, :, :, None], 3, axis=-1), jnp.float32)
    np.testing.assert_allclose(ssim(grey(a), grey(b))[0], np.mean(values), rtol=1e-3)
