"""Masks for editing: from pixels to the tokens that stay, blanking before encoding, the soft edge afterwards.

A mask is a bool array with True where a picture is to be redrawn. Everything here is numpy on the host.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from var_jax.pyramid import Pyramid, area_matrix

_FROM_AFAR = 1e-6  # weight that keeps a division finite where nothing is known


def keep_mask(mask_BxHxW: np.ndarray, pyramid: Pyramid, dilate: int = 0) -> np.ndarray:
    """[B, L] bool: True for the tokens of all scales that stay as they are.

    On the finest grid a token is redrawn if its cell holds one pixel of the mask or lies within `dilate`
    tokens of one that does, since an encoder sees pixels beyond the cell of a token. On a coarser grid a token
    stays where any part of its cell stays: the remaining part was filled in from around (`blank`), and the colours
    in such a token are worth more than a draw that does not see its neighbours. So a mask over everything keeps
    nothing, and an empty one everything.

    Args:
      mask_BxHxW: bool, at the size of the model, a multiple of the finest side.
      pyramid: of the model.
      dilate: tokens of the finest grid, 0 or more.
    """
    side = pyramid.final_side
    cells = mask_BxHxW.reshape(len(mask_BxHxW), side, mask_BxHxW.shape[1] // side, side, -1)
    staying = 1.0 - dilated(np.any(cells, axis=(2, 4)), dilate)
    scales = []
    for p in pyramid.sides:
        matrix = area_matrix(side, p).astype(np.float64)
        share = np.einsum("ih,bhw,jw->bij", matrix, staying, matrix)
        scales.append((share > _FROM_AFAR).reshape(len(share), -1))
    return np.concatenate(scales, axis=1)


def first_scales(pyramid: Pyramid, scales: int) -> np.ndarray:
    """[L] bool: True at every position of the first so many scales."""
    return pyramid.level_ids < scales


def dilated(mask_BxHxW: np.ndarray, steps: int) -> np.ndarray:
    """The mask grown by `steps` cells in each of the eight directions."""
    return ndimage.maximum_filter(mask_BxHxW, size=(1, 2 * steps + 1, 2 * steps + 1), mode="constant")


def blank(image_HxWx3: np.ndarray, mask_HxW: np.ndarray) -> np.ndarray:
    """The picture (any type) with masked pixels filled smoothly from the others: nothing of them is left.

    Known pixels are averaged 2x2 over and over; a pixel that is unknown at one level comes from the coarser one.
    So near the edge the fill has the colours of the edge, and far inside the mean of all. Where nothing is
    known it is mid-grey.
    """
    weights = 1.0 - mask_HxW[..., None].astype(np.float64)
    if not weights.any():
        middle = 127.5 if image_HxWx3.dtype == np.uint8 else 0.5
        return np.full_like(image_HxWx3, middle)
    filled = _fill(image_HxWx3.astype(np.float64) * weights, weights)
    filled = np.rint(filled) if image_HxWx3.dtype == np.uint8 else filled
    return np.where(mask_HxW[..., None], filled.astype(image_HxWx3.dtype), image_HxWx3)


def _fill(sums_HxWx3: np.ndarray, weights_HxWx1: np.ndarray) -> np.ndarray:
    """Weighted means where there is weight; elsewhere those of the coarser level, brought to this size."""
    known = sums_HxWx3 / np.maximum(weights_HxWx1, _FROM_AFAR)
    if max(weights_HxWx1.shape[:2]) == 1 or weights_HxWx1.all():
        return known
    coarse = _enlarged(_fill(_quartered(sums_HxWx3), _quartered(weights_HxWx1)), weights_HxWx1.shape[:2])
    share = np.minimum(weights_HxWx1, 1.0)
    return share * known + (1.0 - share) * coarse


def _quartered(x_HxWxC: np.ndarray) -> np.ndarray:
    """Sums of 2x2, odd sides filled up with nothing."""
    height, width, channels = x_HxWxC.shape
    even = np.pad(x_HxWxC, ((0, height % 2), (0, width % 2), (0, 0)))
    return even.reshape(even.shape[0] // 2, 2, even.shape[1] // 2, 2, channels).sum(axis=(1, 3))


def _enlarged(x_hxwxC: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Twice the size by linear interpolation, cut to `shape`."""
    for axis, length in enumerate(shape):
        centres = np.clip((np.arange(length) + 0.5) / 2 - 0.5, 0, x_hxwxC.shape[axis] - 1)
        low = np.floor(centres).astype(int)
        part = (centres - low).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        high = np.minimum(low + 1, x_hxwxC.shape[axis] - 1)
        x_hxwxC = (1 - part) * np.take(x_hxwxC, low, axis) + part * np.take(x_hxwxC, high, axis)
    return x_hxwxC


def soft_edge(mask_HxW: np.ndarray, width: int) -> np.ndarray:
    """[H, W] float: 1 inside the mask, falling to 0 over `width` pixels around it, and exactly 0 beyond."""
    distance = ndimage.distance_transform_cdt(~mask_HxW, metric="chessboard")
    return np.where(mask_HxW.any(), np.maximum(0.0, 1.0 - distance / (width + 1)), 0.0)


def composite(original_HxWx3: np.ndarray, redrawn_HxWx3: np.ndarray, alpha_HxW: np.ndarray) -> np.ndarray:
    """uint8: the original where alpha is 0, the redrawn picture where it is 1, both byte for byte, else a mixture."""
    a = alpha_HxW[..., None]
    return np.rint((1.0 - a) * original_HxWx3 + a * redrawn_HxWx3.astype(np.float64)).astype(np.uint8)
