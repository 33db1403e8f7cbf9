"""The object that notebooks hold: a model on the device, and what can be asked of it."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from var_jax.errors import InputError
from var_jax.generation import sampler
from var_jax.interop.names import Params
from var_jax.models.tokenizer import Tokenizer
from var_jax.models.transformer import Transformer
from var_jax.training_directory import read_any_model


def load(path: str | os.PathLike[str], dtype: Any = None) -> Bundle:
    """Loads a model directory onto the default device.

    Args:
      path: the directory.
      dtype: compute type of decoder and transformer; None is float32 on CPU and bfloat16 on TPU and
        GPU. Parameters, the tokenizer's encoder and its quantizer are float32 whatever it is.

    Raises:
      InputError: if the directory is not a whole model directory.
    """
    if dtype is None:
        dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    model = read_any_model(path)
    transformer = Transformer(model.transformer_config, dtype) if model.transformer_config else None
    return Bundle(
        tokenizer=Tokenizer(model.tokenizer_config, dtype),
        tokenizer_params=jax.device_put(model.tokenizer_params),
        transformer=transformer,
        transformer_params=jax.device_put(model.transformer_params),
    )


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A model ready to be used: modules and parameters on the device.

    Attributes:
      tokenizer: the tokenizer module, with its compute type.
      tokenizer_params: its parameters.
      transformer: the transformer module, or None where the directory has only a tokenizer.
      transformer_params: its parameters, or None.
    """

    tokenizer: Tokenizer
    tokenizer_params: Params = dataclasses.field(repr=False)
    transformer: Transformer | None = None
    transformer_params: Params | None = dataclasses.field(default=None, repr=False)

    def encode(self, images: np.ndarray | jax.Array) -> jax.Array:
        """Pictures -> tokens [B, L] int32, scales coarse to fine.

        Args:
          images: [B, H, W, 3] uint8, or float in [0, 1]; H = W = `tokenizer.config.image_size`.

        Raises:
          InputError: for another shape, type or range.
        """
        size, images = self.tokenizer.config.image_size, _as_array("images", images)
        shape, kind = images.shape, images.dtype
        if len(shape) != 4 or shape[1:] != (size, size, 3) or not shape[0]:
            raise InputError(f"images of shape {shape}: expected [B, {size}, {size}, 3]")
        if kind != np.uint8:
            if not jnp.issubdtype(kind, jnp.floating):
                raise InputError(f"images of type {kind}: expected uint8, or float in [0, 1]")
            low, high = float(jnp.min(images)), float(jnp.max(images))
            if not (low >= 0.0 and high <= 1.0):
                raise InputError(f"float images range from {low:g} to {high:g}: expected [0, 1]")
        return _encode(self.tokenizer, self.tokenizer_params, jnp.asarray(images))

    def decode(self, tokens_BxL: np.ndarray | jax.Array, scales: int | None = None) -> jax.Array:
        """Tokens -> pictures [B, H, W, 3] float32 in [0, 1], from all scales or the first `scales`.

        Raises:
          InputError: for another length, a token that is no code, or a number of scales out of range.
        """
        total = len(self.tokenizer.config.pyramid)
        if scales is None:
            scales = total
        if not isinstance(scales, (int, np.integer)) or not 1 <= scales <= total:
            raise InputError(f"scales {scales}: expected 1 to {total}")
        tokens_BxL = self._checked_tokens(tokens_BxL)
        return _decode(self.tokenizer, self.tokenizer_params, tokens_BxL, int(scales))

    def logits(self, labels: Sequence[int] | np.ndarray | jax.Array, tokens_BxL: np.ndarray | jax.Array) -> jax.Array:
        """Teacher-forced logits [B, L, V] float32: what the transformer expects at every position.

        Args:
          labels: [B] class ids; `num_classes` is "no class".
          tokens_BxL: the picture's own tokens.

        Raises:
          InputError: without a transformer, or for labels or tokens that cannot be.
        """
        labels_B, tokens_BxL = self._checked_labels(labels), self._checked_tokens(tokens_BxL)
        if labels_B.shape[0] != tokens_BxL.shape[0]:
            raise InputError(f"{labels_B.shape[0]} labels for {tokens_BxL.shape[0]} rows of tokens")
        return _logits(
            self.tokenizer, self.transformer, self.tokenizer_params, self.transformer_params, labels_B, tokens_BxL
        )

    def generate(
        self,
        labels: Sequence[int] | np.ndarray | jax.Array,
        key: jax.Array,
        guidance: float = 1.5,
        top_k: int = 900,
        top_p: float = 0.96,
        temperature: float = 1.0,
        smooth: bool = False,
    ) -> jax.Array:
        """Draws pictures [B, H, W, 3] float32 in [0, 1], one for each label.

        Changing anything but `smooth`, and guidance between none and some, recompiles nothing.

        Args:
          labels: [B] class ids; `num_classes` is "no class".
          key: from `jax.random.key`: a scalar key is folded with the row index, an array of B keys is
            used as it is. A picture depends on its own key and label alone.
          guidance: classifier-free guidance strength in the reference's convention: logits are
            (1 + t) cond - t uncond, t rising from 0 at the coarsest scale to this; **0 is none**.
          top_k: draw from the k likeliest tokens only; 0 is off.
          top_p: draw from the likeliest tokens that make up this probability only; 0 is off.
          temperature: divides the logits before both; above 0 (top_k=1 is the greedy choice).
          smooth: mix codes by Gumbel softmax instead of drawing one; for looks, not for figures.

        Raises:
          InputError: without a transformer, or naming the setting that cannot be.
        """
        labels_B = self._checked_labels(labels)
        check_settings(guidance, top_k, top_p, temperature)
        key = _checked_key(key, labels_B.shape[0])
        config = self.transformer.config
        # Without a class both halves of guidance are equal, so the batch need not be doubled.
        guided = guidance != 0 and not np.all(np.asarray(labels_B) == config.no_class)
        # A top_k beyond the codebook keeps all, and may be beyond 32 bits as well.
        settings = sampler.controls(config.pyramid, guidance, min(top_k, config.codebook_size), top_p, temperature)
        return sampler.generate(
            self.tokenizer,
            self.transformer,
            self.tokenizer_params,
            self.transformer_params,
            labels_B,
            key,
            settings,
            guided=guided,
            smooth=smooth,
        ).images

    def _checked_tokens(self, tokens_BxL: np.ndarray | jax.Array) -> jax.Array:
        config, tokens_BxL = self.tokenizer.config, _as_array("tokens", tokens_BxL)
        shape = tokens_BxL.shape
        if len(shape) != 2 or shape[1] != config.pyramid.length or not shape[0]:
            raise InputError(f"tokens of shape {shape}: expected [B, {config.pyramid.length}]")
        if not jnp.issubdtype(tokens_BxL.dtype, jnp.integer):
            raise InputError(f"tokens of type {tokens_BxL.dtype}: expected integers")
        low, high = int(tokens_BxL.min()), int(tokens_BxL.max())
        if low < 0 or high >= config.codebook_size:
            raise InputError(f"tokens range from {low} to {high}: the codebook has 0 to {config.codebook_size - 1}")
        return jnp.asarray(tokens_BxL, jnp.int32)

    def _checked_labels(self, labels: Sequence[int] | np.ndarray | jax.Array) -> jax.Array:
        if self.transformer is None:
            raise InputError("this model has a tokenizer only: import a transformer with it to sample")
        labels_B, classes = np.asarray(_as_array("labels", labels)), self.transformer.config.num_classes
        if labels_B.ndim != 1 or not labels_B.size or not np.issubdtype(labels_B.dtype, np.integer):
            raise InputError(
                f"labels of shape {labels_B.shape} and type {labels_B.dtype}: expected a list of class ids"
            )
        for label in labels_B:
            if not 0 <= label <= classes:
                raise InputError(f"class id {label}: expected 0 to {classes - 1}, or {classes} for no class")
        return jnp.asarray(labels_B, jnp.int32)


def check_settings(guidance: float, top_k: int, top_p: float, temperature: float) -> None:
    """Raises an InputError naming the first sampling setting that cannot be."""
    if not np.isfinite(_as_float32("guidance", guidance)):
        raise InputError(f"guidance {guidance}: expected a finite number, 0 for none")
    if _as_float32("top_k", top_k) < 0 or top_k % 1 != 0:
        raise InputError(f"top_k {top_k}: expected a whole number, 0 to keep all tokens")
    if not 0.0 <= _as_float32("top_p", top_p) <= 1.0:
        raise InputError(f"top_p {top_p}: expected 0 to 1, 0 to keep all tokens")
    if not 0.0 < _as_float32("temperature", temperature) < np.inf:
        raise InputError(f"temperature {temperature}: expected a number above 0 (top_k 1 is the greedy choice)")


def _as_float32(name: str, value: Any) -> np.float32:
    """The number that the program computes with, for which 1e-50 is 0 and 1e50 infinite."""
    array = np.asarray(value)
    if array.ndim or array.dtype.kind not in "iuf":
        raise InputError(f"{name} {value!r}: expected a number")
    with np.errstate(over="ignore"):
        return np.float32(array)


def _as_array(name: str, value: Any) -> np.ndarray | jax.Array:
    """The value as an array, numpy's unless it is on a device already: numpy keeps numbers beyond 32 bits."""
    try:
        return value if isinstance(value, jax.Array) else np.asarray(value)
    except ValueError:
        raise InputError(f"{name}: expected an array, got a list with rows of different lengths") from None


def _checked_key(key: jax.Array, batch: int) -> jax.Array:
    if not jnp.issubdtype(getattr(key, "dtype", None), jax.dtypes.prng_key):
        raise InputError("key: expected one made by jax.random.key(seed), or an array of such keys")
    if key.shape not in ((), (batch,)):
        raise InputError(f"key of shape {key.shape}: expected one key, or {batch} of them")
    return key


@functools.partial(jax.jit, static_argnums=0)
def _encode(tokenizer: Tokenizer, params: Params, images: jax.Array) -> jax.Array:
    x = images.astype(jnp.float32)
    x = x / 255.0 if images.dtype == jnp.uint8 else x
    return tokenizer.apply({"params": params}, 2.0 * x - 1.0, method="encode")


@functools.partial(jax.jit, static_argnums=0)
def _decode(tokenizer: Tokenizer, params: Params, tokens_BxL: jax.Array, scales: jax.Array) -> jax.Array:
    return (tokenizer.apply({"params": params}, tokens_BxL, scales, method="decode") + 1.0) / 2.0


@functools.partial(jax.jit, static_argnums=(0, 1))
def _logits(
    tokenizer: Tokenizer,
    transformer: Transformer,
    tokenizer_params: Params,
    transformer_params: Params,
    labels_B: jax.Array,
    tokens_BxL: jax.Array,
) -> jax.Array:
    inputs = tokenizer.apply({"params": tokenizer_params}, tokens_BxL, method="transformer_input")
    return transformer.apply({"params": transformer_params}, labels_B, inputs)
