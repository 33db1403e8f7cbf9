"""The analytic counts, beside the published ones and what XLA counts for the same functions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from var_jax.models import costs
from var_jax.models.presets import transformer_preset
from var_jax.models.quantizer import QuantizerConfig
from var_jax.models.shapes import tokenizer_shapes, transformer_shapes
from var_jax.models.tokenizer import Tokenizer, TokenizerConfig
from var_jax.models.transformer import Transformer, TransformerConfig
from var_jax.pyramid import PUBLISHED_SIDES, Pyramid


def counted(fn, *args) -> float:
    """Operations in the lowered program, before any optimisation."""
    return jax.jit(fn).lower(*args).cost_analysis()["flops"]


def test_published_counts():
    tokenizer = TokenizerConfig()
    assert costs.tokenizer_parameters(tokenizer) == 108_948_355
    assert round(costs.transformer_parameters(transformer_preset("d16")) / 1e6, 3) == 310.284
    assert round(costs.encode_flops(tokenizer) / 1e9) == pytest.approx(215, abs=3)
    assert round(costs.decode_flops(tokenizer) / 1e9) == pytest.approx(394, abs=4)
    d16 = transformer_preset("d16")
    assert costs.sample_flops(d16, tokenizer, guided=True) / 1e9 == pytest.approx(990, rel=0.03)


def test_attention_counts_what_the_mask_lets_through():
    for sides in [(1, 2, 3), (4,), *PUBLISHED_SIDES.values()]:
        config = TransformerConfig(Pyramid(sides), 16, 4, 3, 1, 16, 2)
        assert costs.attention_pairs(config) == config.pyramid.block_causal_mask.sum()


@pytest.mark.parametrize(
    "config", [TokenizerConfig(), TokenizerConfig(QuantizerConfig(Pyramid((1, 3, 32)), 512, 16), 64, (1, 2, 2))]
)
def test_tokenizer_beside_xla(config):
    tokenizer, params = Tokenizer(config), tokenizer_shapes(config)
    image = jax.ShapeDtypeStruct((1, config.image_size, config.image_size, 3), jnp.float32)
    tokens = jax.ShapeDtypeStruct((1, config.pyramid.length), jnp.int32)
    encode = counted(lambda p, x: tokenizer.apply({"params": p}, x, method="encode"), params, image)
    decode = counted(lambda p, t: tokenizer.apply({"params": p}, t, method="decode"), params, tokens)
    # XLA leaves out the products with padding and adds the elementwise work: a few per cent each way.
    assert costs.encode_flops(config) == pytest.approx(encode, rel=0.05)
    assert costs.decode_flops(config) == pytest.approx(decode, rel=0.05)


@pytest.mark.parametrize("shared", [False, True])
def test_transformer_beside_xla(shared):
    """One block, because XLA counts the body of the scan over blocks once; no coarse scales, because of its mask."""
    config = TransformerConfig(Pyramid((16,)), 1024, 32, 10, 1, 256, 4, shared_adaln=shared)
    params = transformer_shapes(config)
    inputs = jax.ShapeDtypeStruct((1, 0, 32), jnp.float32)
    labels = jax.ShapeDtypeStruct((1,), jnp.int32)
    forward = counted(lambda p, y, x: Transformer(config).apply({"params": p}, y, x), params, labels, inputs)
    assert costs.transformer_forward_flops(config) == pytest.approx(forward, rel=0.03)
    assert costs.training_flops_per_token(config) == 3 * costs.transformer_forward_flops(config) / 256
