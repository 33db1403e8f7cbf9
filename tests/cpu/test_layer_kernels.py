"""Layers' kernels as arrays of their own give what the stacked ones give."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.interop.checkpoints import drawn_model, transformer_config
from tests.models.golden_models import relative_error
from var_jax.cpu.backend import ONE_CPU
from var_jax.cpu.layer_kernels import ALL_KERNELS, by_layer, stacked
from var_jax.models.backend import XLA
from var_jax.models.transformer import Transformer

CONFIG = transformer_config(depth=3)


@pytest.fixture(scope="module")
def params():
    return jax.device_put(drawn_model(transformer=CONFIG).transformer_params)


def _both(params, module):
    """The loss, with logits, and its gradients."""
    pyramid, labels = CONFIG.pyramid, jnp.array([1, 3])
    inputs = jax.random.normal(jax.random.key(1), (2, pyramid.length - 1, CONFIG.code_width))

    def loss(params):
        logits = module.apply({"params": params}, labels, inputs, jax.random.key(5))
        return jnp.mean(jnp.square(logits)), logits

    return jax.value_and_grad(loss, has_aux=True)(params)


@pytest.fixture(scope="module")
def together(params):
    return jax.jit(_both, static_argnums=1)(params, Transformer(CONFIG, backend=XLA))


@pytest.mark.parametrize("remat", [None, "nothing_saveable", "products"])
def test_training(params, together, remat):
    """Logits, and gradients of every parameter, with class drop and drop path."""

    def apart(params):
        out, grads = _both(by_layer(params), Transformer(CONFIG, backend=ONE_CPU, remat=remat))
        assert {len(grads["blocks"][name]) for name in ALL_KERNELS} == {CONFIG.depth}
        return out, stacked(grads)

    ((_, logits), grads), ((_, logits_apart), grads_apart) = together, jax.jit(apart)(params)
    assert relative_error(logits_apart, logits) < 1e-6
    assert jax.tree.structure(grads) == jax.tree.structure(grads_apart)
    for (path, gradient), other in zip(jax.tree.leaves_with_path(grads), jax.tree.leaves(grads_apart), strict=True):
        assert relative_error(other, gradient) < 1e-5, path


def test_apart_and_together(params):
    again = jax.jit(lambda params: stacked(by_layer(params)))(params)
    assert jax.tree.all(jax.tree.map(lambda a, b: np.array_equal(a, b), again, params))
