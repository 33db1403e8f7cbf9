"""Quantizers beside the published one: codes of length 1, scales left out in training."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.interop.checkpoints import tokenizer_config
from tests.models.golden_models import random_params
from var_jax.interop.tokenizer import export_tokenizer, import_tokenizer
from var_jax.models.quantizer import Quantizer, QuantizerConfig, unit_norm
from var_jax.models.shapes import tokenizer_shapes
from var_jax.models.tokenizer import Tokenizer, TokenizerConfig
from var_jax.pyramid import Pyramid

PYRAMID = Pyramid((1, 2, 3))
CONFIG = QuantizerConfig(PYRAMID, 16, 4)
FEATURES = jax.random.normal(jax.random.key(0), (4, 3, 3, 4))


@pytest.fixture(scope="module")
def params():
    drawn = Quantizer(CONFIG).init(jax.random.key(1), FEATURES)["params"]
    return drawn | {"codebook": 3.0 * jax.random.normal(jax.random.key(2), (16, 4))}


def test_unit_codes_are_those_of_a_codebook_brought_to_length_1(params):
    """Whatever is done with tokens sees the unit codes; and their own lengths are not learned."""
    ours, theirs = Quantizer(QuantizerConfig(PYRAMID, 16, 4, unit_codes=True)), Quantizer(CONFIG)
    unit = params | {"codebook": unit_norm(params["codebook"])}
    out, expected = ours.apply({"params": params}, FEATURES), theirs.apply({"params": unit}, FEATURES)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), out, expected)
    tokens = out.tokens
    for method in ("embed", "decode", "transformer_input"):
        np.testing.assert_allclose(
            ours.apply({"params": params}, tokens, method=method),
            theirs.apply({"params": unit}, tokens, method=method),
            rtol=1e-5,
        )
    lengths = np.linalg.norm(ours.apply({"params": params}, tokens, method="embed"), axis=-1)
    np.testing.assert_allclose(lengths, 1.0, rtol=1e-5)
    grads = jax.grad(lambda codes: ours.apply({"params": params | {"codebook": codes}}, FEATURES).loss)(
        params["codebook"]
    )
    assert np.any(np.abs(grads) > 1e-3)
    np.testing.assert_allclose(np.sum(grads * params["codebook"], axis=-1), 0.0, atol=1e-5)


def test_unit_codes_are_written_as_they_are_used():
    config = tokenizer_config(unit_codes=True)
    assert config.to_dict()["unit_codes"] is True
    assert TokenizerConfig.from_dict(config.to_dict()) == config
    assert "unit_codes" not in tokenizer_config().to_dict()
    module = Tokenizer(config)
    images = jax.random.uniform(jax.random.key(3), (1, config.image_size, config.image_size, 3), minval=-1)
    own = random_params(tokenizer_shapes(config))
    back = import_tokenizer(export_tokenizer(config, own), config.pyramid)
    tokens = jax.jit(functools.partial(module.apply, method="encode"))({"params": own}, images)
    decode = lambda module, params: jax.jit(functools.partial(module.apply, method="decode"))(
        {"params": params}, tokens
    )
    np.testing.assert_allclose(decode(Tokenizer(back.config), back.params), decode(module, own), atol=1e-5)


def test_scales_that_are_left_out_are_not_added_and_not_judged(params):
    module, kept_B = Quantizer(CONFIG), jnp.array([1, 3, 2, 3])
    out, whole = (module.apply({"params": params}, FEATURES, kept) for kept in (kept_B, None))
    np.testing.assert_array_equal(out.tokens, whole.tokens)
    expected, losses = [], []
    for picture, kept in enumerate(kept_B.tolist()):
        tokens, own = whole.tokens[picture : picture + 1], FEATURES[picture : picture + 1]
        sums = [module.apply({"params": params}, tokens, n, method="decode") for n in range(1, kept + 1)]
        expected.append(sums[-1])
        losses.append(sum(1.25 * np.mean(np.square(f_hat - own)) for f_hat in sums) / len(PYRAMID))
    np.testing.assert_allclose(out.f_hat, np.concatenate(expected), atol=1e-5)
    np.testing.assert_allclose(out.decoder_input, out.f_hat, atol=1e-5)
    np.testing.assert_allclose(out.loss, np.mean(losses), rtol=1e-5)
    all_kept = module.apply({"params": params}, FEATURES, jnp.full(4, 3))
    jax.tree.map(np.testing.assert_array_equal, all_kept, whole)


def test_tokens_are_the_codes_nearest_to_the_queries(params):
    module = Quantizer(CONFIG)
    queries = np.asarray(module.apply({"params": params}, FEATURES, method="teach").queries)
    tokens = module.apply({"params": params}, FEATURES, method="encode")
    distances = np.sum((queries[:, :, None] - np.asarray(params["codebook"])) ** 2, axis=-1)
    np.testing.assert_array_equal(np.argmin(distances, axis=-1), tokens)
    np.testing.assert_allclose(queries[:, 0], np.mean(FEATURES, axis=(1, 2)), atol=1e-6)
