"""Pictures and steps under other settings of JAX: the same numbers, whatever the environment says."""

from __future__ import annotations

import contextlib

import jax
import numpy as np
import pytest

from tests.interop.checkpoints import drawn_model, tokenizer_config, transformer_config
from var_jax.bundle import Bundle
from var_jax.generation.batching import class_keys
from var_jax.models.net import Net
from var_jax.models.reproducible import new_key
from var_jax.models.tokenizer import Tokenizer
from var_jax.models.transformer import Transformer
from var_jax.pyramid import Pyramid

PYRAMID, SIZE = Pyramid((1, 2)), 4
SETTINGS = {
    "another kind of key": [("jax_default_prng_impl", "rbg")],
    "a third kind of key": [("jax_default_prng_impl", "unsafe_rbg")],
    "draws that cannot be split": [("jax_threefry_partitionable", False)],
    "ranks": [("jax_numpy_rank_promotion", "raise")],
    "types": [("jax_numpy_dtype_promotion", "strict")],
    "wide numbers": [("jax_enable_x64", True)],
    "not a number": [("jax_debug_nans", True), ("jax_debug_infs", True)],
    "no programs": [("jax_disable_jit", True)],
}


@pytest.fixture(scope="module")
def bundle():
    tokenizer = tokenizer_config(pyramid=PYRAMID, base_channels=8, norm_groups=4)
    transformer = transformer_config(pyramid=PYRAMID, depth=1)
    model = drawn_model(tokenizer, transformer)
    return Bundle(
        Net(Tokenizer(tokenizer), model.tokenizer_params), Net(Transformer(transformer), model.transformer_params)
    )


@contextlib.contextmanager
def configured(settings):
    before = [(name, getattr(jax.config, name)) for name, _ in settings]
    try:
        for name, value in settings:
            jax.config.update(name, value)
        yield
    finally:
        for name, value in before:
            jax.config.update(name, value)


def results(bundle, everything=True):
    """Pictures of a scalar key and, if that is asked for, smooth ones of keys of their own, logits, an edited one."""
    images = np.asarray(bundle.generate([0, 1], jax.random.key(3), guidance=2.0, top_k=9, top_p=0.9))
    if not everything:
        return [images]
    mask = np.zeros((SIZE, SIZE), bool)
    mask[1:3, 1:3] = True
    return [
        images,
        np.asarray(bundle.generate([1], class_keys(5, [1], [0]), smooth=True)),
        np.asarray(bundle.logits([0, 1], np.arange(10).reshape(2, 5))),
        bundle.edit((255 * images[0]).astype(np.uint8), "inpaint", jax.random.key(4), mask=mask),
    ]


@pytest.fixture(scope="module")
def usual(bundle):
    return results(bundle)


@pytest.mark.parametrize("name", SETTINGS)
def test_pictures_depend_on_no_setting(bundle, usual, name):
    with configured(SETTINGS[name]):
        found = results(bundle, name in ("another kind of key", "ranks"))
    for one, other in zip(found, usual, strict=False):
        assert one.dtype == other.dtype
        # Without programs sums are rounded in another order.
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 if name == "no programs" else 0)


def test_pictures_depend_on_no_batch_whatever_keys_are_made(bundle):
    with configured(SETTINGS["another kind of key"]):
        keys = jax.random.split(jax.random.key(3), 2)
        both = np.asarray(bundle.generate([0, 1], keys, guidance=2.0))
        alone = np.concatenate([bundle.generate([row], keys[row : row + 1], guidance=2.0) for row in range(2)])
        assert new_key(3).dtype == class_keys(3, [0], [0]).dtype != keys.dtype
    np.testing.assert_allclose(both, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "extreme", [{"temperature": 1e-37}, {"guidance": 1e38}, {"guidance": -1e38}, {"temperature": 1e38}]
)
def test_smooth_pictures_are_finite_wherever_drawn_ones_are(bundle, extreme):
    for smooth in (False, True):
        images = np.asarray(bundle.generate([0, 1], new_key(0), smooth=smooth, top_k=5, **extreme))
        assert np.all(np.isfinite(images))
