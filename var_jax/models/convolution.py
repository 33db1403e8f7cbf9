"""3x3 convolutions with fewer multiplications, for CPUs.

Winograd's minimal filtering: an m x m square of outputs takes (m + 2)^2 products of numbers instead of 9 m^2, once
inputs, kernel and outputs have gone through small fixed linear maps. Over all squares and channels these products are
(m + 2)^2 matrix products, which is what a CPU does best; other platforms convolve as ever. A few rows of squares are
computed at a time, so that what lies between the maps stays in the caches.

With m = 2 rounding is that of a plain convolution. With m = 4 there are half as many products again, and errors are
about ten times as large, some 1e-5 of the largest output.

Source: A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv 1509.09308.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

_SAME = ((1, 1), (1, 1))
_LEAST_PRODUCTS = 2**28  # of a plain convolution; with fewer there is nothing to gain
_LEAST_TILES = 0.5  # a channel: below that the kernels' transform is most of the work
_STRIP_BYTES = 2**22  # of transformed inputs computed at a time

Rows = tuple[tuple[float, ...], ...]


@dataclasses.dataclass(frozen=True)
class _Maps:
    """The linear maps of m outputs in a row: their rows, of inputs [m + 2], kernel [3] and products [m + 2]."""

    inputs: Rows
    kernel: Rows
    products: Rows


# Interpolation at 0, 1, -1 and infinity, and at 2 and -2 too.
_MAPS = {
    2: _Maps(
        inputs=((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
        kernel=((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
        products=((1, 1, 1, 0), (0, 1, -1, -1)),
    ),
    4: _Maps(
        inputs=(
            (4, 0, -5, 0, 1, 0),
            (0, -4, -4, 1, 1, 0),
            (0, 4, -4, -1, 1, 0),
            (0, -2, -1, 2, 1, 0),
            (0, 2, -1, -2, 1, 0),
            (0, 4, 0, -5, 0, 1),
        ),
        kernel=(
            (1 / 4, 0, 0),
            (-1 / 6, -1 / 6, -1 / 6),
            (-1 / 6, 1 / 6, -1 / 6),
            (1 / 24, 1 / 12, 1 / 6),
            (1 / 24, -1 / 12, 1 / 6),
            (0, 0, 1),
        ),
        products=((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
    ),
}


@dataclasses.dataclass(frozen=True)
class Winograd:
    """To be called like `jax.lax.conv_general_dilated`; what it is not made for it convolves plainly.

    Attributes:
      outputs: m, 2 or 4.
    """

    outputs: int

    def __call__(
        self,
        x_BxHxWxC: jax.Array,
        kernel_3x3xCxO: jax.Array,
        window_strides: Sequence[int],
        padding: Any,
        precision: Any = None,
        **others: Any,
    ) -> jax.Array:
        """[B, H, W, O]: fewer products on CPUs for large float32 convolutions of stride 1 that keep the size."""
        plain = functools.partial(
            jax.lax.conv_general_dilated, window_strides=window_strides, padding=padding, precision=precision, **others
        )
        if not self._applies(x_BxHxWxC, kernel_3x3xCxO, window_strides, padding):
            return plain(x_BxHxWxC, kernel_3x3xCxO)
        tiled = functools.partial(convolve, outputs=self.outputs)
        return jax.lax.platform_dependent(x_BxHxWxC, kernel_3x3xCxO, cpu=tiled, default=plain)

    def _applies(self, x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Any) -> bool:
        if kernel.shape[:2] != (3, 3) or tuple(strides) != (1, 1) or tuple(map(tuple, padding)) != _SAME:
            return False
        batch, height, width, channels = x.shape
        tiles = batch * height * width / self.outputs**2
        return (
            x.dtype == kernel.dtype == jnp.float32
            and height % self.outputs == width % self.outputs == 0
            and batch * height * width * kernel.size >= _LEAST_PRODUCTS
            and tiles >= _LEAST_TILES * channels
        )


def convolve(x_BxHxWxC: jax.Array, kernel_3x3xCxO: jax.Array, outputs: int) -> jax.Array:
    """[B, H, W, O] with zeros around; H and W are multiples of `outputs`."""
    batch, height, width, channels = x_BxHxWxC.shape
    maps, side = _MAPS[outputs], outputs + 2
    rows = height // outputs
    largest = _STRIP_BYTES // (4 * batch * (width // outputs) * side**2 * channels)
    strip = max(size for size in range(1, rows + 1) if rows % size == 0 and size <= max(1, largest))
    by_kernel_rows = [_combined(row, list(kernel_3x3xCxO)) for row in maps.kernel]
    kernels = jnp.stack([_combined(row, list(part)) for part in by_kernel_rows for row in maps.kernel])
    padded = jnp.pad(x_BxHxWxC, ((0, 0), *_SAME, (0, 0)))
    convolved = lambda start: _strip(
        jax.lax.dynamic_slice_in_dim(padded, start, strip * outputs + 2, axis=1), kernels, maps
    )
    out_NxBxhxWxO = jax.lax.map(convolved, jnp.arange(0, height, strip * outputs))
    return jnp.swapaxes(out_NxBxhxWxO, 0, 1).reshape(batch, height, width, -1)


def _strip(x_BxhxwxC: jax.Array, kernels_NxCxO: jax.Array, maps: _Maps) -> jax.Array:
    """Outputs [B, h - 2, w - 2, O] of padded rows."""
    outputs, side = len(maps.products), len(maps.inputs)
    batch, height, width, channels = x_BxhxwxC.shape
    down, along = (height - 2) // outputs, (width - 2) // outputs
    # Every outputs-th row or column from the i-th on: the i-th of every square.
    every = lambda x, axis, i, count: jax.lax.slice_in_dim(x, i, i + (count - 1) * outputs + 1, outputs, axis)
    by_rows = [every(x_BxhxwxC, 1, i, down) for i in range(side)]
    by_rows = [_combined(row, by_rows) for row in maps.inputs]
    inputs = [
        _combined(row, [every(part, 2, j, along) for j in range(side)]).reshape(-1, channels)
        for part in by_rows
        for row in maps.inputs
    ]
    products = jnp.einsum("ntc,nco->nto", jnp.stack(inputs), kernels_NxCxO, precision=jax.lax.Precision.HIGHEST)
    products = products.reshape(side, side, batch, down, along, -1)
    by_rows = [_combined(row, list(products)) for row in maps.products]
    out = [jnp.stack([_combined(row, list(part)) for row in maps.products], axis=3) for part in by_rows]
    return jnp.stack(out, axis=2).reshape(batch, height - 2, width - 2, -1)


def _combined(factors: Sequence[float], parts: Sequence[jax.Array]) -> jax.Array:
    """The sum of the parts times their factors, without those whose factor is zero."""
    terms = [part if factor == 1 else factor * part for factor, part in zip(factors, parts, strict=True) if factor]
    return functools.reduce(jnp.add, terms)
