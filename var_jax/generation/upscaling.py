"""Zero-shot super-resolution, by a model that was never trained for it.

The picture is enlarged by cubic interpolation, encoded and decoded: codes and decoder have learned sharp pictures, and
render a blurred edge as a sharp one. The transformer may draw the finer scales instead, which takes longer and comes no
nearer (docs/editing.md). Then everything that contradicts the small picture is corrected: shrunk again, the result has
to be the small picture. A picture larger than the model sees at a time is done in windows that overlap and blend into
each other.

This is repeated with the windows shifted by parts of a token, and averaged: how well an edge is rendered depends on its
place in the cell of its token, so its errors differ from shift to shift.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from var_jax.errors import InputError
from var_jax.generation.checks import check_size, is_whole
from var_jax.generation.editing import Redraw, Window
from var_jax.generation.masks import first_scales
from var_jax.generation.pictures import to_uint8
from var_jax.pyramid import Pyramid

_CORRECTIONS = 3  # cubic enlarging and then shrinking is not quite the identity, so once is not enough
# Shifts of the windows, down and right, in sides of a token's cell: no two in the same row or column.
_SHIFTS = ((0.0, 0.0), (-0.375, -0.25), (0.25, -0.375), (0.375, 0.25), (-0.25, 0.375))


def upscale(
    redraw: Redraw,
    pyramid: Pyramid,
    size: int,
    images_NxHxWx3: np.ndarray,
    factor: int = 2,
    keep_scales: int | None = None,
) -> np.ndarray:
    """Pictures at `factor` times their size: uint8 [N, factor H, factor W, 3].

    Args:
      redraw: the masked sampler; is called once per shift, with the windows of every picture.
      pyramid, size: of the model.
      images_NxHxWx3: uint8.
      factor: a divisor of `size`, 2 or more.
      keep_scales: scales that encode the enlarged picture, the finer ones being drawn; None: all.

    Raises:
      InputError: for another factor, or a result of too many pixels.
    """
    if not is_whole(factor) or factor < 2 or size % factor:
        fitting = ", ".join(str(n) for n in range(2, size + 1) if size % n == 0)
        raise InputError(
            f"factor {str(factor)[:60]}: expected a divisor of the model's picture side {size}, like {fitting}"
        )
    keep_scales = len(pyramid) if keep_scales is None else keep_scales
    if not is_whole(keep_scales) or not 1 <= keep_scales <= len(pyramid):
        raise InputError(f"keep_scales {str(keep_scales)[:60]}: expected 1 to {len(pyramid)}")
    height, width = (side * factor for side in images_NxHxWx3.shape[1:3])
    check_size(height, width)
    enlarged_N = [resize(image.astype(np.float32), (height, width)) for image in images_NxHxWx3]
    blended_N = _blended(redraw, pyramid, size, enlarged_N, keep_scales)
    return np.stack([to_uint8(corrected(*pair) / 255.0) for pair in zip(blended_N, images_NxHxWx3, strict=True)])


def _blended(
    redraw: Redraw, pyramid: Pyramid, size: int, enlarged_N: list[np.ndarray], keep_scales: int
) -> list[np.ndarray]:
    """The enlarged pictures, float [H, W, 3] in [0, 255], redrawn in all windows and shifts, which are averaged."""
    height, width = enlarged_N[0].shape[:2]
    seen_N = [np.rint(np.clip(enlarged, 0, 255)).astype(np.uint8) for enlarged in enlarged_N]
    totals, weight = [np.zeros_like(enlarged) for enlarged in enlarged_N], _tent(size)
    weights = np.zeros((height, width, 1), np.float32)
    for shift in _SHIFTS:
        down, right = (round(part * size / pyramid.final_side) for part in shift)
        places = [Window(at.left + right, at.top + down, size, size) for at in windows(height, width, size)]
        parts = np.stack([window.cut(seen) for seen in seen_N for window in places])
        keep_mask_BxL = np.tile(first_scales(pyramid, keep_scales), (len(parts), 1))
        drawn_B = iter(np.asarray(redraw(parts, keep_mask_BxL), np.float32))
        for n in range(len(totals)):
            for window in places:
                totals[n] = window.put_back(totals[n], window.cut(totals[n]) + weight * 255.0 * next(drawn_B))
        for window in places:
            weights = window.put_back(weights, window.cut(weights) + weight)
    return [total / weights for total in totals]


def corrected(drawn_HxWx3: np.ndarray, small_hxwx3: np.ndarray) -> np.ndarray:
    """The drawn picture, float in [0, 255], changed smoothly so that its block means are the small picture's."""
    small = small_hxwx3.astype(np.float32)
    for _ in range(_CORRECTIONS):
        missing = small - resize(drawn_HxWx3, small.shape[:2])
        drawn_HxWx3 = np.clip(drawn_HxWx3 + resize(missing, drawn_HxWx3.shape[:2]), 0.0, 255.0)
    return drawn_HxWx3


def windows(height: int, width: int, size: int) -> Iterator[Window]:
    """Windows of the size of the model over a picture, each overlapping the next by at least a quarter."""
    for top in _starts(height, size):
        for left in _starts(width, size):
            yield Window(left, top, size, size)


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
