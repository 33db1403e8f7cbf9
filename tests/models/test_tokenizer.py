"""The whole tokenizer against the reference's numbers, its size, and the shapes of its relatives."""

from __future__ import annotations

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.golden_models import random_params, relative_error, small_tokenizer, to_nhwc
from var_jax.errors import InputError
from var_jax.interop.names import to_reference
from var_jax.interop.tokenizer import tokenizer_table
from var_jax.models.quantizer import QuantizerConfig
from var_jax.models.shapes import tokenizer_shapes
from var_jax.models.tokenizer import Tokenizer, TokenizerConfig
from var_jax.pyramid import PUBLISHED_SIDES, Pyramid

TINY = {
    "codebook_size": 32,
    "code_width": 4,
    "base_channels": 8,
    "channel_multipliers": (1, 2),
    "encoder_blocks": 1,
    "decoder_blocks": 1,
    "norm_groups": 4,
}


@pytest.fixture(scope="module")
def stored(golden):
    return golden("tokenizer_small")


@pytest.fixture(scope="module")
def small(stored):
    imported = small_tokenizer(stored)
    return Tokenizer(imported.config), imported.params


def test_features_and_tokens(stored, small):
    tokenizer, params = small
    image = to_nhwc(stored["image"])
    features = jax.jit(lambda p, x: tokenizer.apply({"params": p}, x, method="features"))(params, image)
    assert relative_error(features, to_nhwc(stored["features"])) < 1e-4
    tokens = np.asarray(jax.jit(lambda p, x: tokenizer.apply({"params": p}, x, method="encode"))(params, image))
    assert np.mean(tokens != stored["tokens"]) <= 1 / stored["tokens"].size
    inputs = jax.jit(lambda p, t: tokenizer.apply({"params": p}, t, method="transformer_input"))(
        params, stored["tokens"]
    )
    assert relative_error(inputs, stored["var_input"]) < 1e-4


def test_reconstruction_by_number_of_scales(stored, small):
    tokenizer, params = small
    numbers = range(1, len(tokenizer.config.pyramid) + 1)

    @jax.jit
    def decoded(params, tokens):
        bound = tokenizer.bind({"params": params})
        return [(bound.decode(tokens, scales), bound.quantizer.decode(tokens, scales)) for scales in numbers]

    for scales, (ours, f_hat) in zip(numbers, decoded(params, stored["tokens"]), strict=True):
        assert relative_error(ours, to_nhwc(stored["reconstruction_per_scale"][scales - 1])) < 1e-4
        assert relative_error(f_hat, to_nhwc(stored["f_hat_per_scale"][scales - 1])) < 1e-4


def test_training_forward_and_gradients(stored, small):
    tokenizer, params = small
    image = jnp.asarray(to_nhwc(stored["image"]))

    def loss_fn(params):
        out = tokenizer.apply({"params": params}, image)
        return jnp.mean(jnp.square(out.reconstruction_BxHxWx3 - image)) + out.quantizer_loss, out

    (loss, out), grads = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))(params)
    np.testing.assert_array_equal(out.tokens_BxL, stored["tokens"])
    assert relative_error(out.reconstruction_BxHxWx3, to_nhwc(stored["train/reconstruction"])) < 1e-4
    np.testing.assert_allclose(out.quantizer_loss, stored["train/vq_loss"], rtol=1e-4)
    np.testing.assert_allclose(loss, stored["train/loss"], rtol=1e-4)
    by_name = to_reference(tokenizer_table(tokenizer.config), grads)
    expected = {name.removeprefix("train/grad/"): g for name, g in stored.items() if name.startswith("train/grad/")}
    assert len(expected) > 5
    for name, gradient in expected.items():
        assert relative_error(by_name[name], gradient) < 1e-3, name


@pytest.fixture(scope="module")
def pixel_gradients(stored, small):
    """`gradients(module)`: of the loss of the stored picture's pixels alone."""
    image = jnp.asarray(to_nhwc(stored["image"]))

    @functools.cache
    def gradients(module):
        loss = lambda p: jnp.mean(jnp.square(module.apply({"params": p}, image).reconstruction_BxHxWx3 - image))
        return jax.jit(jax.grad(loss))(small[1])

    return gradients


def test_recomputing_blocks_changes_no_gradient(stored, small, pixel_gradients):
    tokenizer, params = small
    image = jnp.asarray(to_nhwc(stored["image"]))
    again = Tokenizer(tokenizer.config, remat="nothing_saveable")
    for one, other in zip(*map(jax.tree.leaves, map(pixel_gradients, (tokenizer, again))), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    recomputed = str(jax.make_jaxpr(lambda p: again.apply({"params": p}, image))(params)).count("remat")
    blocks = tokenizer.config.encoder_blocks + tokenizer.config.decoder_blocks
    assert recomputed == len(tokenizer.config.channel_multipliers) * blocks + 4


def test_features_are_placed_wherever_they_change_shape(small):
    """Every convolution of both networks but the last of each has its result placed."""
    tokenizer, params = small
    seen = []

    def constrain(x, name):
        seen.append((name, x.shape))
        return x

    module = Tokenizer(tokenizer.config, constrain=constrain)
    jax.eval_shape(lambda p: module.apply({"params": p}, jnp.zeros((2, 16, 16, 3))), params)
    assert {name for name, _ in seen} == {"features"}
    assert {shape[1] for _, shape in seen} == {
        16 // 2**level for level in range(len(tokenizer.config.channel_multipliers))
    }


def test_decoder_gives_nothing_to_the_codes(small, pixel_gradients):
    """Straight-through: the pixel loss reaches the encoder, but neither codebook nor phi."""
    grads = pixel_gradients(small[0])
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(grads["quantizer"]))
    assert np.any(grads["encoder"]["conv_in"]["kernel"])


def test_published_size():
    total = sum(leaf.size for leaf in jax.tree.leaves(tokenizer_shapes(TokenizerConfig())))
    assert total == 108_948_355


def test_bfloat16_decoder_stays_close(stored, small):
    tokenizer, params = small
    narrow = Tokenizer(tokenizer.config, dtype=jnp.bfloat16)
    ours = jax.jit(lambda p, t: narrow.apply({"params": p}, t, method="decode"))(params, stored["tokens"])
    assert ours.dtype == jnp.float32
    reference = to_nhwc(stored["reconstruction_per_scale"][-1])
    assert np.sqrt(np.mean((ours - reference) ** 2)) < 2e-2  # of a range of 2


SIDES = [*PUBLISHED_SIDES.values(), (16,), (1, 3, 8), (2, 2, 5)]
WIDTHS = [(160, (1, 1, 2, 2, 4)), (32, (1,)), (64, (2, 1, 3))]


@pytest.mark.parametrize(  # every pair of values
    ("sides", "num_phis", "widths"),
    [(sides, phis, WIDTHS[(i + j) % 3]) for i, sides in enumerate(SIDES) for j, phis in enumerate((1, 4, None))],
)
def test_shapes_of_many(sides, num_phis, widths):
    base, multipliers = widths
    config = TokenizerConfig(QuantizerConfig(Pyramid(sides), 512, 16, num_phis), base, multipliers)
    tokenizer = Tokenizer(config)
    params = tokenizer_shapes(config)
    image = jax.ShapeDtypeStruct((2, config.image_size, config.image_size, 3), jnp.float32)
    out = jax.eval_shape(lambda p, x: tokenizer.apply({"params": p}, x), params, image)
    assert out.reconstruction_BxHxWx3.shape == image.shape
    assert out.tokens_BxL.shape == (2, config.pyramid.length)
    assert len(tokenizer_table(config)) > 0


@pytest.mark.parametrize(
    ("sides", "num_phis", "lookup"),
    [((4,), 1, "l2"), ((1, 2, 4), None, "l2"), ((1, 4), 2, "cosine"), ((1, 1, 3), 3, "l2")],
)
def test_a_handful_really_runs(sides, num_phis, lookup):
    fields = {"pyramid": sides, "num_phis": num_phis, "lookup": lookup, "dropout": 0.1}
    config = TokenizerConfig.from_fields(**fields, **TINY)
    tokenizer = Tokenizer(config)
    image = jax.random.uniform(jax.random.key(0), (2, config.image_size, config.image_size, 3), minval=-1)
    params = random_params(tokenizer_shapes(config))

    def loss_fn(params):
        out = tokenizer.apply({"params": params}, image, deterministic=False, rngs={"dropout": jax.random.key(2)})
        return jnp.mean(jnp.square(out.reconstruction_BxHxWx3 - image)) + out.quantizer_loss

    loss, grads = jax.jit(jax.value_and_grad(loss_fn))(params)
    assert np.isfinite(loss)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(grads))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(grads["quantizer"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codebook_size": 0}, "codebook_size is 0"),
        ({"code_width": 2.5}, "code_width is 2.5"),
        ({"lookup": "manhattan"}, "lookup 'manhattan'"),
        ({"phi_ratio": 1.5}, "phi_ratio is 1.5"),
        ({"base_channels": 30}, "norm_groups"),
        ({"channel_multipliers": ()}, "levels of channel_multipliers is 0"),
        ({"pyramid": Pyramid((1, 2)), "num_phis": 0}, "num_phis is 0"),
    ],
)
def test_impossible_configs_are_named(change, message):
    with pytest.raises(InputError, match=message):
        TokenizerConfig.from_fields(**change)


def test_config_survives_plain_values_and_names_the_odd_field():
    config = TokenizerConfig.from_fields(pyramid=Pyramid((1, 5)), num_phis=None, **TINY)
    assert TokenizerConfig.from_dict(config.to_dict()) == config
    with pytest.raises(InputError, match="unknown field 'codebok_size'"):
        TokenizerConfig.from_dict(config.to_dict() | {"codebok_size": 3})
    with pytest.raises(InputError, match="lacks the field 'lookup'"):
        TokenizerConfig.from_dict({k: v for k, v in config.to_dict().items() if k != "lookup"})
    with pytest.raises(InputError, match="unknown field 'codebok_size'"):
        TokenizerConfig.from_fields(codebok_size=3)


def test_files_have_the_fields_of_the_quantizer_beside_the_tokenizers():
    """To the byte as ever, in this order: descriptions of models are compared by fingerprints of them."""
    assert json.dumps(TokenizerConfig().to_dict()) == (
        '{"pyramid": [1, 2, 3, 4, 5, 6, 8, 10, 13, 16], "codebook_size": 4096, "code_width": 32, "base_channels": 160, '
        '"channel_multipliers": [1, 1, 2, 2, 4], "encoder_blocks": 2, "decoder_blocks": 3, "norm_groups": 32, '
        '"num_phis": 4, "phi_ratio": 0.5, "lookup": "l2", "commitment_weight": 0.25, "dropout": 0.0}'
    )
    unit = TokenizerConfig(QuantizerConfig(unit_codes=True))
    assert list(unit.to_dict().items())[-2:] == [("dropout", 0.0), ("unit_codes", True)]
    assert TokenizerConfig.from_fields(pyramid="512", dropout=0.1) == TokenizerConfig(
        QuantizerConfig(Pyramid(PUBLISHED_SIDES[512])), dropout=0.1
    )
