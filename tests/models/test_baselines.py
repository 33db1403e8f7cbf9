"""Baselines: raster order, the last scale alone as input, norms without a class; causal, cached as uncached."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.golden_models import random_params
from var_jax.cpu.backend import ONE_CPU
from var_jax.errors import InputError
from var_jax.generation import sampler
from var_jax.generation.batching import picture_keys
from var_jax.generation.settings import PLAIN, Settings
from var_jax.interop.transformer import export_transformer
from var_jax.models.baselines import (
    LAST_SCALE,
    PREVIOUS_TOKEN,
    BaselineConfig,
    make_transformer,
    transformer_config_from,
)
from var_jax.models.costs import block_parameters, transformer_parameters
from var_jax.models.net import Net, Nets
from var_jax.models.presets import transformer_preset
from var_jax.models.quantizer import Quantizer, QuantizerConfig
from var_jax.models.shapes import tokenizer_shapes
from var_jax.models.tokenizer import Tokenizer, TokenizerConfig
from var_jax.models.transformer import TransformerConfig
from var_jax.pyramid import Pyramid

CODES, WIDTH = 12, 4


def tokenizer(sides):
    return TokenizerConfig(QuantizerConfig(Pyramid(sides), CODES, WIDTH), 8, (1, 2), 1, 1, 4)


def transformer(sides, **changes):
    return BaselineConfig(Pyramid(sides), CODES, WIDTH, 3, 2, 16, 2, gate_init=1.0, input_init=4.0, **changes)


def drawn(config, seed=0, batch=3):
    """Module, parameters far from their start, class ids and inputs."""
    random = np.random.default_rng(seed)
    module = make_transformer(config, backend=ONE_CPU)
    length = config.pyramid.length - config.start_length
    inputs = jnp.asarray(random.standard_normal((batch, length, WIDTH)), jnp.float32)
    labels = jnp.arange(batch) % config.num_classes
    params = jax.device_get(jax.jit(module.init)(jax.random.key(seed), labels, inputs)["params"])
    params = jax.tree.map(lambda x: x + 0.1 * random.standard_normal(x.shape).astype(np.float32), params)
    return module, params, labels, inputs


def test_raster_order_sees_the_tokens_before_and_no_other():
    module, params, labels, inputs = drawn(transformer((4,), inputs=PREVIOUS_TOKEN))

    def logits_at(inputs, position):
        return jnp.sum(module.apply({"params": params}, labels, inputs)[:, position] ** 2)

    slope_at = jax.jit(jax.grad(logits_at))
    for position in (0, 1, 7, 15):
        slope = slope_at(inputs, position)
        seen = np.any(np.asarray(slope) != 0, axis=(0, 2))
        np.testing.assert_array_equal(seen, np.arange(15) < position)


def both(config, sides, guided, seed=3):
    """What the sampler draws in one program, and the teacher-forced logits of the very tokens it drew."""
    module, params, labels, _ = drawn(config)
    shape = tokenizer(sides)
    own = Tokenizer(shape)
    own_params = random_params(tokenizer_shapes(shape))
    random = np.random.default_rng(seed)
    own_params["quantizer"]["codebook"] = jnp.asarray(random.standard_normal((CODES, WIDTH)), jnp.float32)
    settings = Settings.create(config.pyramid, **PLAIN | {"guidance": 1.5 if guided else 0.0})
    nets = Net(own, own_params), Net(module, jax.device_put(params))
    draw = lambda nets: jax.jit(sampler.sample)(nets, labels, jax.random.key(seed), settings)
    sampled, by_layer = draw(Nets(*nets)), draw(sampler.prepared(*nets))
    np.testing.assert_array_equal(sampled.tokens_BxL, by_layer.tokens_BxL)

    @jax.jit
    def teacher_forced(labels):
        inputs = module.teacher_inputs(own.bind({"params": own_params}).quantizer, sampled.tokens_BxL)
        return module.apply({"params": params}, labels, inputs)

    with_class = teacher_forced(labels)
    if not guided:
        return sampled, with_class
    without = teacher_forced(jnp.full_like(labels, config.no_class))
    t_L = np.repeat(np.asarray(settings.guidance_S), config.pyramid.lengths)[None, :, None]
    return sampled, (1 + t_L) * with_class - t_L * without


@pytest.mark.parametrize(
    ("sides", "changes", "guided"),
    [
        ((3,), {"inputs": PREVIOUS_TOKEN}, False),
        ((3,), {"inputs": PREVIOUS_TOKEN}, True),
        ((3,), {"inputs": PREVIOUS_TOKEN, "adaln": False, "qk_norm": False}, True),
        ((1, 2, 4), {"inputs": LAST_SCALE}, False),
        ((1, 2, 4), {"inputs": LAST_SCALE}, True),
        ((1, 2, 4), {"adaln": False}, True),
    ],
)
def test_sampling_computes_what_training_does(sides, changes, guided):
    sampled, teacher_forced = both(transformer(sides, **changes), sides, guided)
    np.testing.assert_allclose(sampled.logits_BxLxV, teacher_forced, atol=2e-4, rtol=2e-4)


def test_a_raster_picture_depends_on_its_own_key_alone():
    config = transformer((3,), inputs=PREVIOUS_TOKEN)
    module, params, _, _ = drawn(config)
    labels, own_params = jnp.arange(5) % config.num_classes, random_params(tokenizer_shapes(tokenizer((3,))))
    settings, keys = Settings.create(config.pyramid, **PLAIN | {"top_k": 5}), picture_keys(jax.random.key(0), 5)
    nets = Nets(Net(Tokenizer(tokenizer((3,))), own_params), Net(module, params))
    draw = lambda rows: np.asarray(jax.jit(sampler.sample)(nets, labels[rows], keys[rows], settings).tokens_BxL)
    np.testing.assert_array_equal(draw(np.array([2, 0, 4]))[:2], draw(np.arange(3))[[2, 0]])


def test_the_last_scale_alone_is_what_the_sum_lacked():
    quantizer, tokens = Quantizer(QuantizerConfig(Pyramid((1, 2, 4)), CODES, WIDTH, 1)), jnp.arange(21)[None] % CODES
    params = quantizer.init(jax.random.key(0), jnp.zeros((1, 4, 4, WIDTH)))
    module = make_transformer(transformer((1, 2, 4), inputs=LAST_SCALE))
    total = quantizer.apply(params, tokens, method="transformer_input")
    alone = module.teacher_inputs(quantizer.bind(params), tokens)
    np.testing.assert_allclose(total[:, :4], alone[:, :4], atol=1e-6)  # nothing came before the first scale
    first = quantizer.apply(params, quantizer.apply(params, tokens[:, :1], method="embed"), 0, method="contribution")
    shrunk = quantizer.apply(params, first, 2, method="next_scale_input")
    np.testing.assert_allclose(total[:, 4:] - alone[:, 4:], shrunk, atol=1e-6)


def test_one_scale_alone_is_a_tokenizer_of_one_map():
    shape = tokenizer((4,))
    own = Tokenizer(shape)
    image = jax.random.uniform(jax.random.key(0), (2, 8, 8, 3), minval=-1.0)
    params = {"params": random_params(tokenizer_shapes(shape))}
    tokens = jax.jit(functools.partial(own.apply, method="encode"))(params, image)
    assert tokens.shape == (2, 16)
    reconstruction = jax.jit(own.apply)(params, image).reconstruction_BxHxWx3
    assert reconstruction.shape == image.shape
    raster = make_transformer(transformer((4,), inputs=PREVIOUS_TOKEN))
    inputs = raster.teacher_inputs(own.bind(params).quantizer, tokens)
    codebook = params["params"]["quantizer"]["codebook"]
    np.testing.assert_array_equal(inputs, codebook[tokens[:, :-1]])


def test_what_cannot_be_says_so():
    with pytest.raises(InputError, match="a tokenizer of one scale"):
        transformer((1, 2), inputs=PREVIOUS_TOKEN)
    with pytest.raises(InputError, match="expected one of cumulative"):
        transformer((1, 2), inputs="pixels")
    with pytest.raises(InputError, match="none to share"):
        transformer((1, 2), shared_adaln=True, adaln=False)
    config = transformer((4,), inputs=PREVIOUS_TOKEN)
    module, params, _, _ = drawn(config)
    with pytest.raises(InputError, match="in raster order"):
        export_transformer(config, params)


def test_descriptions_of_older_models_stay_as_they_were():
    plain, other = transformer((1, 2)), transformer((1, 2), inputs=LAST_SCALE, adaln=False)
    assert {"adaln", "inputs"}.isdisjoint(plain.to_dict())
    assert transformer_config_from(other.to_dict()) == other
    described = transformer_config_from(plain.to_dict())
    assert type(described) is TransformerConfig
    assert described.to_dict() == plain.to_dict()


def test_parameters_of_the_scaling_laws():
    for depth in (6, 16, 30):
        assert block_parameters(transformer_preset(f"d{depth}")) == 73728 * depth**3
    d16 = transformer_preset("d16")
    bare = transformer_config_from(d16.to_dict() | {"adaln": False})
    assert round(transformer_parameters(bare) / 1e6) == 207  # as the paper prints for its row without AdaLN
    assert block_parameters(bare) == 12 * 16 * 1024**2
