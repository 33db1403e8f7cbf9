"""Zero-shot super-resolution: coarse scales tell what a small picture knows, finer ones are drawn.

The picture is enlarged by cubic interpolation and encoded; scales no finer than the small picture's own grid
are kept and the finer ones, which would tell its blur, are drawn. Then whatever contradicts the small picture
is corrected: shrunk again, the result has to be the picture that was given. A picture larger than the model
sees at a time is done in windows that overlap and blend into each other.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from var_jax.errors import InputError
from var_jax.generation.editing import Redraw, Window
from var_jax.generation.masks import first_scales
from var_jax.generation.pictures import to_uint8
from var_jax.pyramid import Pyramid

_CORRECTIONS = 3  # shrinking what cubic interpolation enlarged is not quite the identity, so once is not enough
_LARGEST = 2**26  # pixels of the result


def kept_scales(pyramid: Pyramid, factor: int) -> int:
    """Scales that a picture `factor` times smaller than the model's can tell: 1 at least."""
    return max(1, sum(side * factor <= pyramid.final_side for side in pyramid.sides))


def upscale(
    redraw: Redraw,
    pyramid: Pyramid,
    size: int,
    image_HxWx3: np.ndarray,
    factor: int = 2,
    keep_scales: int | None = None,
) -> np.ndarray:
    """The picture at `factor` times its size: uint8 [factor H, factor W, 3].

    Args:
      redraw: the masked sampler; is called once, with a picture for each window.
      pyramid, size: of the model.
      image_HxWx3: uint8.
      factor: a divisor of `size`, 2 or more.
      keep_scales: scales that tell the given picture; None: `kept_scales`.

    Raises:
      InputError: for another factor, or a result of too many pixels.
    """
    if factor < 2 or size % factor:
        fitting = ", ".join(str(n) for n in range(2, size + 1) if size % n == 0)
        raise InputError(f"factor {factor}: expected a divisor of the model's picture side {size}, like {fitting}")
    keep_scales = kept_scales(pyramid, factor) if keep_scales is None else keep_scales
    if not 1 <= keep_scales <= len(pyramid):
        raise InputError(f"keep_scales {keep_scales}: expected 1 to {len(pyramid)}")
    height, width = (side * factor for side in image_HxWx3.shape[:2])
    if height * width > _LARGEST:
        raise InputError(f"a result of {width} x {height} pixels is beyond the largest, {_LARGEST} pixels; cut it up")
    enlarged = resize(image_HxWx3.astype(np.float32), (height, width))
    shown = np.rint(np.clip(enlarged, 0, 255)).astype(np.uint8)
    places = list(windows(height, width, size))
    keep_NxL = np.tile(first_scales(pyramid, keep_scales), (len(places), 1))
    drawn_N = np.asarray(redraw(np.stack([window.cut(shown) for window in places]), keep_NxL), np.float32)
    total, weights, weight = np.zeros_like(enlarged), np.zeros((height, width, 1), np.float32), _tent(size)
    for window, drawn in zip(places, drawn_N, strict=True):
        total = window.put_back(total, window.cut(total) + weight * 255.0 * drawn)
        weights = window.put_back(weights, window.cut(weights) + weight)
    return to_uint8(corrected(total / weights, image_HxWx3) / 255.0)


def corrected(drawn_HxWx3: np.ndarray, small_hxwx3: np.ndarray) -> np.ndarray:
    """The drawn picture, float in [0, 255], changed smoothly so that its block means are the small picture's."""
    small = small_hxwx3.astype(np.float32)
    for _ in range(_CORRECTIONS):
        missing = small - resize(drawn_HxWx3, small.shape[:2])
        drawn_HxWx3 = np.clip(drawn_HxWx3 + resize(missing, drawn_HxWx3.shape[:2]), 0.0, 255.0)
    return drawn_HxWx3


def windows(height: int, width: int, size: int) -> Iterator[Window]:
    """Windows of the model's size over a picture, a quarter of them overlapping at least."""
    for top in _starts(height, size):
        for left in _starts(width, size):
            yield Window(left, top, size)


def _starts(length: int, size: int) -> list[int]:
    if length <= size:
        return [(length - size) // 2]
    count = 1 + -(-(length - size) // (size - size // 4))
    return [round(start) for start in np.linspace(0, length - size, count)]


def _tent(size: int) -> np.ndarray:
    """[size, size, 1] weights, largest in the middle and nowhere 0."""
    line = 1.0 - np.abs(np.linspace(-1, 1, size)) * (1.0 - 1.0 / size)
    return (line[:, None] * line[None])[..., None].astype(np.float32)


def resize(image_HxWx3: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """float32 [*shape, 3]: enlarged by cubic interpolation, shrunk by means of blocks."""
    smaller = shape[0] < image_HxWx3.shape[0]
    how = Image.Resampling.BOX if smaller else Image.Resampling.BICUBIC
    channels = [Image.fromarray(channel).resize(shape[::-1], how) for channel in _planes(image_HxWx3)]
    return np.stack([np.asarray(channel) for channel in channels], axis=-1)


def _planes(image_HxWx3: np.ndarray) -> Iterator[np.ndarray]:
    for channel in range(image_HxWx3.shape[-1]):
        yield np.ascontiguousarray(image_HxWx3[..., channel], np.float32)
