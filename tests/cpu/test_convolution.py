"""Convolutions as matrix products are plain convolutions, on what they are made for and on all else."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from var_jax.cpu import convolution
from var_jax.cpu.backend import CPUS, ONE_CPU
from var_jax.cpu.convolution import convolve, winograd
from var_jax.models.backend import XLA
from var_jax.models.quantizer import QuantizerConfig
from var_jax.models.tokenizer import Tokenizer, TokenizerConfig
from var_jax.pyramid import Pyramid

ERROR = 1e-5  # of the largest output
plain = functools.partial(
    jax.lax.conv_general_dilated,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    precision=jax.lax.Precision.HIGHEST,
)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


@pytest.mark.parametrize("shape", [(1, 4, 4, 3), (3, 12, 8, 5), (2, 8, 20, 16)])
@pytest.mark.parametrize("strip_bytes", [1, 2**13, 2**30])
@pytest.mark.parametrize("outputs", [7, None])
def test_winograd_is_convolution(shape, strip_bytes, outputs):
    """Numpy's in float64, at the borders too, in strips of one row of squares, of several and of all.

    With as many outputs as channels, outputs take the inputs' place.
    """
    x, kernel = draw(*shape), draw(3, 3, shape[-1], outputs or shape[-1], seed=1)
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = shape[1:3]
    expected = sum(padded[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3))
    found = winograd(x, kernel, strip_bytes=strip_bytes)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=ERROR * np.abs(expected).max(), rtol=0)


SAME, NONE = ((1, 1), (1, 1)), ((0, 0), (0, 0))
KINDS = {
    "many positions": ((1, 8, 8, 4), (3, 3), (1, 1), SAME, np.float32, True),
    "many channels": ((1, 4, 4, 128), (3, 3), (1, 1), SAME, np.float32, False),
    "a side that is no multiple": ((1, 8, 7, 4), (3, 3), (1, 1), SAME, np.float32, False),
    "a stride": ((1, 8, 8, 4), (3, 3), (2, 2), ((0, 1), (0, 1)), np.float32, False),
    "one by one": ((1, 8, 8, 4), (1, 1), (1, 1), NONE, np.float32, False),
    "no padding": ((1, 8, 8, 4), (3, 3), (1, 1), NONE, np.float32, False),
    "bfloat16": ((1, 8, 8, 4), (3, 3), (1, 1), SAME, jnp.bfloat16, False),
}


@pytest.mark.parametrize("kind", KINDS)
def test_where_it_is_used(monkeypatch, kind):
    shape, window, strides, padding, dtype, used = KINDS[kind]
    monkeypatch.setattr(convolution, "_LEAST_PRODUCTS", 0)
    calls = []
    monkeypatch.setattr(convolution, "winograd", lambda *arrays: calls.append(1) or winograd(*arrays))
    x, kernel = draw(*shape).astype(dtype), draw(*window, shape[-1], 6, seed=1).astype(dtype)
    settings = {"window_strides": strides, "padding": padding}
    run = jax.jit(lambda x, kernel: convolve(x, kernel, dimension_numbers=("NHWC", "HWIO", "NHWC"), **settings))
    expected = plain(x, kernel, **settings)
    found = run(x, kernel)
    assert bool(calls) == used and found.dtype == expected.dtype
    expected = np.asarray(expected, np.float32)
    bound = 2e-2 if dtype == jnp.bfloat16 else ERROR
    np.testing.assert_allclose(np.asarray(found, np.float32), expected, atol=bound * np.abs(expected).max(), rtol=0)


def test_gradients(monkeypatch):
    """Differentiable where it is used, in a program without a convolution."""
    monkeypatch.setattr(convolution, "_LEAST_PRODUCTS", 0)
    x, kernel = draw(1, 8, 8, 4), draw(3, 3, 4, 6, seed=1)
    settings = {"window_strides": (1, 1), "padding": ((1, 1), (1, 1))}
    named = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    fast = lambda x, kernel: convolve(x, kernel, **settings, **named)
    total = lambda kind: jax.jit(jax.grad(lambda *both: jnp.sum(jnp.square(kind(*both))), (0, 1)))(x, kernel)
    for a, b in zip(total(fast), total(functools.partial(plain, **settings)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max(), rtol=0)
    here = jax.jit(fast).lower(x, kernel).compile().as_text()
    assert " dot(" in here and " convolution(" not in here and " conditional(" not in here


@pytest.mark.parametrize("backend", [CPUS, ONE_CPU], ids=["together", "one by one"])
def test_a_tokenizer_with_and_without(monkeypatch, backend):
    """Tokens are the same; pictures to rounding."""
    monkeypatch.setattr("var_jax.cpu.backend._LARGE_PICTURE", 0)
    monkeypatch.setattr(convolution, "_LEAST_PRODUCTS", 0)
    monkeypatch.setattr(convolution, "_LEAST_SQUARES", 0.0)
    config = TokenizerConfig(
        QuantizerConfig(Pyramid((1, 2, 4)), 64, 8),
        base_channels=32,
        channel_multipliers=(1, 2, 2),
        encoder_blocks=1,
        decoder_blocks=1,
    )
    tokenizers = [Tokenizer(config, backend=one) for one in (backend, XLA)]
    params = jax.eval_shape(tokenizers[0].init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))["params"]
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda x: rng.normal(0, np.prod(x.shape[:-1]) ** -0.5, x.shape).astype(np.float32), params)
    pictures = np.tanh(draw(2, 16, 16, 3))
    tokens = [
        jax.jit(lambda p, x, t=t: t.apply({"params": p}, x, method="encode"))(params, pictures) for t in tokenizers
    ]
    np.testing.assert_array_equal(*tokens)
    assert len(np.unique(tokens[0])) > 5
    f_hat = draw(2, 4, 4, 8, seed=2)
    decode = lambda t: jax.jit(lambda p, f: t.apply({"params": p}, f, method="decode_features"))(params, f_hat)
    found, expected = map(decode, tokenizers)
    assert np.abs(found - expected).max() > 0, "the decoder convolves plainly"
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max(), rtol=0)
