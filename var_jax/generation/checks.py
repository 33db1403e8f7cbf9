"""Checks of a user's arrays, before any of them reaches a program that could only fail inside XLA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from var_jax.errors import InputError
from var_jax.generation.classes import class_ids
from var_jax.models.reproducible import same_kind
from var_jax.models.tokenizer import TokenizerConfig

Array = np.ndarray | jax.Array

MOST_PIXELS, LONGEST_SIDE = 2**26, 2**15  # of a picture to be edited, and of the result


def checked_images(images: Any, size: int) -> Array:
    """Pictures [B, size, size, 3], uint8 or float in [0, 1].

    Raises:
      InputError: for another shape, type or range.
    """
    images = _as_array("images", images)
    shape, kind = images.shape, images.dtype
    if len(shape) != 4 or shape[1:] != (size, size, 3) or not shape[0]:
        raise InputError(f"images of shape {shape}: expected [B, {size}, {size}, 3]")
    if kind != np.uint8:
        if not jnp.issubdtype(kind, jnp.floating):
            raise InputError(f"images of type {kind}: expected uint8, or float in [0, 1]")
        low, high = float(jnp.min(images)), float(jnp.max(images))
        if not (low >= 0.0 and high <= 1.0):
            raise InputError(f"float images range from {low:g} to {high:g}: expected [0, 1]")
    return images


def checked_picture(image: Any) -> np.ndarray:
    """One picture of any size, uint8 [H, W, 3].

    Raises:
      InputError: for another shape or type.
    """
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise InputError(f"image of shape {image.shape} and type {image.dtype}: expected uint8 [H, W, 3]")
    check_size(*image.shape[:2])
    return image


def check_size(height: int, width: int) -> None:
    """Refuses a picture, to be edited or made, that has too many pixels or too long a side."""
    if height * width > MOST_PIXELS or max(height, width) > LONGEST_SIDE:
        raise InputError(
            f"a picture of {width} x {height} pixels: expected at most {MOST_PIXELS} pixels, and {LONGEST_SIDE} along "
            "a side; cut it up"
        )


def checked_mask(mask: Any, shape: tuple[int, int]) -> np.ndarray:
    """A mask of a picture, [H, W] bool; numbers 0 and 1 stand for False and True.

    Raises:
      InputError: for another size, or other values.
    """
    mask = np.asarray(_as_array("mask", mask))
    if mask.shape != shape:
        found = " x ".join(map(str, mask.shape[1::-1] + mask.shape[2:])) or "no"
        raise InputError(f"mask of {found} pixels: the picture has {shape[1]} x {shape[0]}, make it the same size")
    if mask.dtype.kind not in "buif" or not np.isin(mask, (0, 1)).all():
        raise InputError(f"mask of type {mask.dtype}: expected True and False, or 0 and 1; give mask >= 128, say")
    return mask.astype(bool)


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number, Python's or numpy's."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def checked_tokens(tokens_BxL: Any, config: TokenizerConfig) -> jax.Array:
    """Tokens [B, L] int32 of a tokenizer with this config.

    Raises:
      InputError: for another shape or type, or a token that is no code.
    """
    tokens_BxL = _as_array("tokens", tokens_BxL)
    shape = tokens_BxL.shape
    if len(shape) != 2 or shape[1] != config.pyramid.length or not shape[0]:
        raise InputError(f"tokens of shape {shape}: expected [B, {config.pyramid.length}]")
    if not jnp.issubdtype(tokens_BxL.dtype, jnp.integer):
        raise InputError(f"tokens of type {tokens_BxL.dtype}: expected integers")
    low, high = int(tokens_BxL.min()), int(tokens_BxL.max())
    if low < 0 or high >= config.codebook_size:
        raise InputError(f"tokens range from {low} to {high}: the codebook has 0 to {config.codebook_size - 1}")
    return jnp.asarray(tokens_BxL, jnp.int32)


def checked_labels(labels: Any, num_classes: int, names: Sequence[str]) -> jax.Array:
    """Class ids [B] int32 from ids or names; `num_classes` or None is "no class".

    Raises:
      InputError: for anything else, or a class that the model does not have.
    """
    labels_B = np.asarray(_as_array("labels", class_ids(labels, num_classes, names)))
    if labels_B.ndim != 1 or not labels_B.size or not np.issubdtype(labels_B.dtype, np.integer):
        raise InputError(f"labels of shape {labels_B.shape} and type {labels_B.dtype}: expected a list of class ids")
    for label in labels_B:
        if not 0 <= label <= num_classes:
            raise InputError(f"class id {label}: expected 0 to {num_classes - 1}, or {num_classes} for no class")
    return jnp.asarray(labels_B, jnp.int32)


def checked_keep_mask(keep_mask_BxL: Any, shape: tuple[int, int], labels: int) -> jax.Array:
    """A mask [B, L] bool of tokens that stay, with as many labels as pictures.

    Raises:
      InputError: for another shape or type, or another number of labels.
    """
    keep_mask_BxL = _as_array("keep_mask", keep_mask_BxL)
    if keep_mask_BxL.shape != shape or keep_mask_BxL.dtype != bool or labels != shape[0]:
        raise InputError(
            f"keep_mask of shape {keep_mask_BxL.shape} and type {keep_mask_BxL.dtype} with {labels} labels: "
            f"expected {shape} of bool and {shape[0]} labels"
        )
    return jnp.asarray(keep_mask_BxL)


def checked_key(key: Any, batch: int | None = None) -> jax.Array:
    """One key, or `batch` of them where that is given, of the kind that draws the same in batches of any size.

    Raises:
      InputError: for anything but keys as `jax.random.key` makes them.
    """
    dtype = getattr(key, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key):
        raise InputError("key: expected one made by jax.random.key(seed), or an array of such keys")
    if key.shape != () and key.shape != (batch,):
        raise InputError(f"key of shape {key.shape}: expected one key" + (f", or {batch} of them" if batch else ""))
    return same_kind(key)


def _as_array(name: str, value: Any) -> Array:
    """The value as an array, numpy's unless it is on a device already: numpy keeps numbers beyond 32 bits."""
    try:
        if isinstance(value, jax.Array):
            return value
        array = np.asarray(value)
        return array.astype(array.dtype.newbyteorder("="), copy=False)  # JAX takes no other order of bytes
    except ValueError:
        raise InputError(f"{name}: expected an array, got a list with rows of different lengths") from None
