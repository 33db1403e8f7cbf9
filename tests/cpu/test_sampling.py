"""What sampling on a CPU takes lies where the parameters lie, and draws the same pictures."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.interop.checkpoints import drawn_model, transformer_config
from var_jax.cpu.backend import ONE_CPU
from var_jax.cpu.layer_kernels import KERNELS, for_sampling, shapes_for_sampling
from var_jax.generation import sampler
from var_jax.generation.settings import Settings
from var_jax.models.backend import XLA
from var_jax.models.net import Net, Nets
from var_jax.models.tokenizer import Tokenizer
from var_jax.models.transformer import Transformer


@pytest.fixture(scope="module")
def model():
    return drawn_model(transformer=transformer_config(depth=3, width=32))


def test_no_copy_is_made(model):
    params = jax.device_put(model.transformer_params)
    blocks = for_sampling(params)["blocks"]
    for name in KERNELS:
        stack, layers = params["blocks"][name], blocks[name]
        assert isinstance(layers, tuple)
        for number, layer in enumerate(layers):
            np.testing.assert_array_equal(layer, stack[number])
            assert layer.unsafe_buffer_pointer() == stack.unsafe_buffer_pointer() + number * layer.nbytes, name
    assert blocks["q_bias"] is params["blocks"]["q_bias"]
    of_arrays = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), for_sampling(params))
    shapes = jax.eval_shape(lambda: params)
    assert shapes_for_sampling(shapes) == of_arrays


def test_parameters_of_several_devices_stay_as_they_are(model):
    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2], axis_types=(jax.sharding.AxisType.Auto,))
    params = jax.device_put(model.transformer_params, jax.sharding.NamedSharding(mesh, jax.P()))
    assert for_sampling(params) is params


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_same_pictures(model, dtype):
    config = model.transformer_config
    params = jax.device_put((model.tokenizer_params, model.transformer_params))
    tokenizer = Net(Tokenizer(model.tokenizer_config, dtype), params[0])
    plain, own = (Net(Transformer(config, dtype, backend), params[1]) for backend in (XLA, ONE_CPU))
    settings = Settings.create(config.pyramid, guidance=1.5, top_k=8, top_p=0.9)
    prepared = sampler.prepared(tokenizer, own)
    assert isinstance(prepared.transformer.params["blocks"][KERNELS[0]], tuple)
    drawn = [
        sampler.generate(each, jnp.array([1, 4, 0]), jax.random.key(3), settings)
        for each in (Nets(tokenizer, plain), Nets(tokenizer, own), prepared)
    ]
    for other in drawn[1:]:
        np.testing.assert_array_equal(drawn[0].tokens, other.tokens)
        np.testing.assert_allclose(drawn[0].images, other.images, atol=1e-5)
