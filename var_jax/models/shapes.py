"""The parameter trees of tokenizers and transformers as shapes; nothing is computed."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from var_jax.models.baselines import make_transformer
from var_jax.models.parameters import Params, Path, flatten, unflatten
from var_jax.models.reproducible import own_settings
from var_jax.models.tokenizer import Tokenizer, TokenizerConfig
from var_jax.models.transformer_config import TransformerConfig


def tokenizer_shapes(config: TokenizerConfig) -> Params:
    """A tokenizer's parameters as `jax.ShapeDtypeStruct`s."""
    return unflatten(_tokenizer_leaves(config))


def transformer_shapes(config: TransformerConfig) -> Params:
    """A transformer's parameters as `jax.ShapeDtypeStruct`s."""
    return unflatten(_transformer_leaves(config))


@functools.lru_cache(maxsize=8)  # tracing the network takes longer than reading a small one's file
@own_settings()
def _tokenizer_leaves(config: TokenizerConfig) -> dict[Path, jax.ShapeDtypeStruct]:
    image = jax.ShapeDtypeStruct((1, config.image_size, config.image_size, 3), jnp.float32)
    return flatten(jax.eval_shape(Tokenizer(config).init, jax.random.key(0), image)["params"])


@functools.lru_cache(maxsize=8)
@own_settings()
def _transformer_leaves(config: TransformerConfig) -> dict[Path, jax.ShapeDtypeStruct]:
    pyramid = config.pyramid
    inputs = jax.ShapeDtypeStruct((1, pyramid.length - config.start_length, config.code_width), jnp.float32)
    labels = jax.ShapeDtypeStruct((1,), jnp.int32)
    return flatten(jax.eval_shape(make_transformer(config).init, jax.random.key(0), labels, inputs)["params"])
