"""The model of a benchmark: a preset with drawn weights, which cost as much as trained ones, or a model directory."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from var_jax.errors import InputError
from var_jax.models.parameters import Params
from var_jax.models.presets import transformer_preset
from var_jax.models.shapes import tokenizer_shapes, transformer_shapes
from var_jax.models.tokenizer import TokenizerConfig
from var_jax.models.transformer_config import TransformerConfig
from var_jax.parallel.rules import path_name
from var_jax.pyramid import PUBLISHED_SIDES, Pyramid
from var_jax.training_directory import read_any_model


@dataclasses.dataclass(frozen=True)
class Chosen:
    """A model: its configs and, from a directory, its weights.

    Attributes:
      name: the name in reports.
      tokenizer, transformer: the parts' configs; a directory may have no transformer.
      tokenizer_params, transformer_params: numpy arrays from a directory; None: to be drawn.
    """

    name: str
    tokenizer: TokenizerConfig
    transformer: TransformerConfig | None
    tokenizer_params: Params | None = dataclasses.field(default=None, repr=False)
    transformer_params: Params | None = dataclasses.field(default=None, repr=False)

    def tokenizer_on_device(self) -> Params:
        """Puts the tokenizer's parameters on the device."""
        if self.tokenizer_params is not None:
            return jax.device_put(self.tokenizer_params)
        return _drawn(tokenizer_shapes(self.tokenizer))

    def transformer_on_device(self) -> Params:
        """Puts the transformer's parameters on the device.

        Raises:
          InputError: if the model has no transformer.
        """
        c = self.transformer
        if c is None:
            raise InputError(f"{self.name}: has a tokenizer only, take a --preset or import a transformer with it")
        if self.transformer_params is not None:
            return jax.device_put(self.transformer_params)
        return _drawn(transformer_shapes(c))


def preset(name: str, pyramid: str | None = None, channels: int = 160) -> Chosen:
    """Chooses a transformer by depth and a tokenizer of the published kind.

    Args:
      name: "d16", "d36-s" and the like.
      pyramid: "256", "512", "1024" or sides; None: 512 for shared AdaLN, else 256.
      channels: base width of the tokenizer; the published ones have 160.

    Raises:
      InputError: for an unknown preset, or an invalid pyramid or width.
    """
    sides = Pyramid(PUBLISHED_SIDES[512 if name.endswith("-s") else 256]) if pyramid is None else Pyramid.parse(pyramid)
    tokenizer = TokenizerConfig.from_fields(pyramid=sides, base_channels=channels)
    return Chosen(name, tokenizer, transformer_preset(name, tokenizer))


def directory(path: str) -> Chosen:
    """Reads a model or training directory, with its weights.

    Raises:
      InputError: if `path` holds no model.
    """
    model = read_any_model(path)
    shapes = model.tokenizer_config, model.transformer_config
    return Chosen(path, *shapes, model.tokenizer_params, model.transformer_params)


def _drawn(shapes: Params) -> Params:
    """Draws small normal numbers, around 1 for scale parameters; by numpy, which compiles nothing."""
    rng = np.random.default_rng(0)

    def draw(path: Sequence[Any], leaf: jax.ShapeDtypeStruct) -> jax.Array:
        numbers = 0.02 * rng.standard_normal(leaf.shape, np.float32)
        return jax.device_put(numbers + 1 if path_name(path).endswith("scale") else numbers)

    return jax.tree_util.tree_map_with_path(draw, shapes)
