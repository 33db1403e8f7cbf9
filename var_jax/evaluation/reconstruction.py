"""How close a reconstruction is: PSNR and SSIM, a number a picture."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

_WINDOW, _SIGMA = 11, 1.5
_K1, _K2 = 0.01, 0.03


def psnr(a_BxHxWx3: jax.Array, b_BxHxWx3: jax.Array) -> jax.Array:
    """[B] peak signal-to-noise ratio in dB of pictures in [0, 1]; 100 where they are equal."""
    error = jnp.mean(jnp.square(a_BxHxWx3 - b_BxHxWx3), axis=(1, 2, 3))
    return -10.0 * jnp.log10(jnp.maximum(error, 1e-10))


def ssim(a_BxHxWx3: jax.Array, b_BxHxWx3: jax.Array) -> jax.Array:
    """[B] structural similarity of pictures in [0, 1] (Wang et al. 2004).

    Gaussian window of 11 with sigma 1.5 (as large as the picture allows), no padding, per channel,
    then the mean.
    """
    size = min(_WINDOW, a_BxHxWx3.shape[1], a_BxHxWx3.shape[2])
    offsets = np.arange(size) - (size - 1) / 2
    window = np.exp(-(offsets**2) / (2 * _SIGMA**2))
    window = (window / window.sum()).astype(np.float32)

    def blur(x: jax.Array) -> jax.Array:
        for axis in (1, 2):
            valid = x.shape[axis] - size + 1
            x = sum(w * jax.lax.slice_in_dim(x, i, i + valid, axis=axis) for i, w in enumerate(window))
        return x

    mean_a, mean_b = blur(a_BxHxWx3), blur(b_BxHxWx3)
    var_a = blur(a_BxHxWx3**2) - mean_a**2
    var_b = blur(b_BxHxWx3**2) - mean_b**2
    covariance = blur(a_BxHxWx3 * b_BxHxWx3) - mean_a * mean_b
    c1, c2 = _K1**2, _K2**2
    quality = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    quality /= (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return jnp.mean(quality, axis=(1, 2, 3))
