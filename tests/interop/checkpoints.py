"""Small models with drawn weights, as our parameters and as the reference checkpoints that they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.models.golden_models import random_params
from var_jax.interop import tokenizer as tokenizer_interop
from var_jax.interop import transformer as transformer_interop
from var_jax.model_directory import Model
from var_jax.models.shapes import tokenizer_shapes, transformer_shapes
from var_jax.models.tokenizer import TokenizerConfig
from var_jax.models.transformer import TransformerConfig
from var_jax.pyramid import Pyramid

Tensors = dict[str, np.ndarray]

TOKENIZER = TokenizerConfig.from_fields(
    pyramid=Pyramid((1, 2, 3)),
    codebook_size=16,
    code_width=4,
    base_channels=32,  # the reference's norm groups, which its files imply
    channel_multipliers=(1, 1),
    encoder_blocks=1,
    decoder_blocks=1,
)
TRANSFORMER = TransformerConfig(
    pyramid=TOKENIZER.pyramid,
    codebook_size=TOKENIZER.codebook_size,
    code_width=TOKENIZER.code_width,
    num_classes=5,
    depth=2,
    width=16,
    num_heads=2,
    drop_path=0.1 * 2 / 24,
)


def tokenizer_config(**changes: Any) -> TokenizerConfig:
    """The small tokenizer with some fields, of its own or of its quantizer, changed."""
    return TokenizerConfig.from_dict(TOKENIZER.to_dict() | changes)


def transformer_config(**changes: Any) -> TransformerConfig:
    """The small transformer with some fields changed."""
    return dataclasses.replace(TRANSFORMER, **changes)


def drawn_model(
    tokenizer: TokenizerConfig = TOKENIZER, transformer: TransformerConfig | None = TRANSFORMER, seed: int = 0
) -> Model:
    """A model whose every number is drawn, counts of code use included."""
    counts = np.random.default_rng([seed, 1]).random((len(tokenizer.pyramid), tokenizer.codebook_size), np.float32)
    params = random_params(tokenizer_shapes(tokenizer), seed)
    model = Model(tokenizer, params, counts, source={"tokenizer": "drawn"})
    if transformer is None:
        return model
    params = random_params(transformer_shapes(transformer), seed + 1)
    return dataclasses.replace(model, transformer_config=transformer, transformer_params=params)


def tokenizer_tensors(model: Model) -> Tensors:
    """The model's tokenizer as the reference keeps it."""
    return tokenizer_interop.export_tokenizer(model.tokenizer_config, model.tokenizer_params, model.code_counts_SxV)


def transformer_tensors(model: Model) -> Tensors:
    """The model's transformer as the reference keeps it."""
    return transformer_interop.export_transformer(model.transformer_config, model.transformer_params)


def nested(prefix: str, tensors: Mapping[str, np.ndarray]) -> Tensors:
    """Tensors under a prefix, as a training checkpoint has them once it is flattened."""
    return {f"{prefix}{name}": array for name, array in tensors.items()}


def changed(tensors: Mapping[str, np.ndarray], **by_name: np.ndarray | None) -> Tensors:
    """The tensors with some replaced, added, or (None) left out; a dot in a name is written as two underscores."""
    replaced = {name.replace("__", "."): array for name, array in by_name.items()}
    return {name: array for name, array in {**tensors, **replaced}.items() if array is not None}


def assert_bitwise(left: Mapping[str, np.ndarray], right: Mapping[str, np.ndarray]) -> None:
    """Same names, types, shapes and bits."""
    assert sorted(left) == sorted(right)
    for name, array in left.items():
        assert (array.dtype, array.shape) == (right[name].dtype, right[name].shape), name
        assert array.tobytes() == right[name].tobytes(), name
