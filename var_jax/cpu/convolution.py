"""3x3 convolutions as matrix products, which a CPU does best.

By Winograd's minimal filtering: a square of 4x4 outputs takes 36 products of numbers instead of 144, once inputs,
kernel and outputs have gone through small fixed linear maps. Over all squares and channels these are 36 matrix
products, and the maps are matrix products, too. A few rows of squares are computed at a time, so that the
results between the maps stay in the caches.

Sources: A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv 1509.09308; of points that
keep errors small, B. Barabasz et al., "Error Analysis and Improving the Accuracy of Winograd Convolution for Deep
Neural Networks", arXiv 1803.10986.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

_SAME = ((1, 1), (1, 1))
_LEAST_PRODUCTS = 2**28  # of a plain convolution; with fewer there is nothing to gain
_LEAST_SQUARES = 0.02  # a channel: below that the kernel's map is most of the work
_STRIP_BYTES = 2**23  # of transformed inputs computed at a time

Rows = tuple[tuple[float, ...], ...]


class _Maps(NamedTuple):
    """The linear maps of m outputs in a row: their rows, of inputs [m + 2], kernel [3] and products [m + 2]."""

    inputs: Rows
    kernel: Rows
    products: Rows


def _maps(points: Sequence[Fraction]) -> _Maps:
    """From where polynomials are multiplied value by value: m + 1 points, and infinity.

    A convolution is the transpose of a product of polynomials, here of m and 3 coefficients.
    """
    outputs = len(points) - 1
    others = [[b for b in points if b != a] for a in points]
    scales = [math.prod(a - b for b in rest) for a, rest in zip(points, others, strict=True)]
    powers = lambda count: [[a**power for power in range(count)] for a in points]
    infinity = lambda count: [Fraction(0)] * (count - 1) + [Fraction(1)]
    inputs = [*([*_product(rest), Fraction(0)] for rest in others), _product(points)]
    kernel = [[value / scale for value in row] for row, scale in zip(powers(3), scales, strict=True)] + [infinity(3)]
    products = zip(*powers(outputs), infinity(outputs), strict=True)
    return _Maps(*(tuple(tuple(map(float, row)) for row in rows) for rows in (inputs, kernel, products)))


def _product(roots: Sequence[Fraction]) -> list[Fraction]:
    """Coefficients of the polynomial that is zero there, the highest 1, from the lowest on."""
    found = [Fraction(1)]
    for root in roots:
        found = [above - root * here for above, here in zip([0, *found], [*found, 0], strict=True)]
    return found


# Such points that errors are small: of all pairs of multiples of 1/16 these have the smallest, less than half of those
# of 1 and 2, with which the maps would have fewer multiplications. A network's are then as with plain convolutions.
_MAPS = _maps([Fraction(0), *(sign * Fraction(*place) for place in ((5, 8), (3, 2)) for sign in (1, -1))])
_TWICE = _Maps(*(tuple(tuple(a * b for a in one for b in other) for one in rows for other in rows) for rows in _MAPS))
_OUTPUTS, _INPUTS = len(_MAPS.products), len(_MAPS.inputs)


def convolve(
    x_BxHxWxC: jax.Array,
    kernel_3x3xCxO: jax.Array,
    window_strides: Sequence[int],
    padding: Any,
    precision: Any = None,
    **others: Any,
) -> jax.Array:
    """[B, H, W, O]: `jax.lax.conv_general_dilated`, as matrix products where that pays.

    It does for large float32 convolutions of stride 1 that keep the size.
    """
    if _pays(x_BxHxWxC, kernel_3x3xCxO, window_strides, padding):
        return winograd(x_BxHxWxC, kernel_3x3xCxO)
    return jax.lax.conv_general_dilated(
        x_BxHxWxC, kernel_3x3xCxO, window_strides, padding, precision=precision, **others
    )


def _pays(x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Any) -> bool:
    batch, height, width, channels = x.shape
    squares = batch * height * width / _OUTPUTS**2
    return (
        kernel.shape[:2] == (3, 3)
        and tuple(strides) == (1, 1)
        and tuple(map(tuple, padding)) == _SAME
        and x.dtype == kernel.dtype == jnp.float32
        and height % _OUTPUTS == width % _OUTPUTS == 0
        and math.prod(x.shape[:3]) * kernel.size >= _LEAST_PRODUCTS
        and squares >= _LEAST_SQUARES * channels
    )


@functools.partial(jax.jit, static_argnames="strip_bytes")  # so that layers of one shape are traced and lowered once
def winograd(x_BxHxWxC: jax.Array, kernel_3x3xCxO: jax.Array, strip_bytes: int = _STRIP_BYTES) -> jax.Array:
    """[B, H, W, O] with zeros around; H and W are multiples of 4."""
    batch, height, width, channels = x_BxHxWxC.shape
    outputs = kernel_3x3xCxO.shape[-1]
    rows = height // _OUTPUTS
    largest = strip_bytes // (4 * batch * (width // _OUTPUTS) * _INPUTS**2 * channels)
    strip = max(size for size in range(1, rows + 1) if rows % size == 0 and size <= max(1, largest))
    padded = jax.lax.optimization_barrier(jnp.pad(x_BxHxWxC, ((0, 0), *_SAME, (0, 0))))
    # A corner of the padding: zero, but not before the inputs are there. Sums with it wait for them, instead of being
    # made for all layers of a network at once, and held: fresh memory is slow.
    zero = padded[0, 0, 0, 0]
    by_columns = (kernel_3x3xCxO + zero).swapaxes(0, 1).reshape(9, -1)
    kernels_36xCxO = _mapped(_TWICE.kernel, by_columns).reshape(_INPUTS**2, channels, outputs)
    # Outputs take the place of inputs that no later strip needs, one row and column before them.
    in_place = outputs == channels

    def put(number: jax.Array, out: jax.Array) -> jax.Array:
        start = number * strip * _OUTPUTS
        x = jax.lax.dynamic_slice_in_dim(out if in_place else padded, start, strip * _OUTPUTS + 2, axis=1)
        return jax.lax.dynamic_update_slice_in_dim(out, _strip(x, kernels_36xCxO), start, axis=1)

    out = padded if in_place else jnp.full((batch, height, width, outputs), zero)
    return jax.lax.fori_loop(0, rows // strip, put, out)[:, :height, :width]


def _strip(x_BxhxwxC: jax.Array, kernels_36xCxO: jax.Array) -> jax.Array:
    """Outputs [B, h - 2, w - 2, O] of padded rows."""
    batch, height, width, channels = x_BxhxwxC.shape
    down, along = (height - 2) // _OUTPUTS, (width - 2) // _OUTPUTS
    by_rows = _mapped(_MAPS.inputs, _places(x_BxhxwxC, 1, down)).reshape(_INPUTS, batch, down, width, channels)
    inputs = _mapped(_MAPS.inputs, _places(by_rows, 3, along)).reshape(_INPUTS**2, -1, channels)
    products = jnp.matmul(inputs, kernels_36xCxO, precision=jax.lax.Precision.HIGHEST)
    out = _mapped(_TWICE.products, products.reshape(_INPUTS**2, -1))
    out = out.reshape(_OUTPUTS, _OUTPUTS, batch, down, along, -1)  # a square's columns, its rows, then which square
    return out.transpose(2, 3, 1, 4, 0, 5).reshape(batch, height - 2, width - 2, -1)


def _places(x: jax.Array, axis: int, squares: int) -> jax.Array:
    """[6, all else]: the values of every square at each of its six places along an axis."""
    every = lambda place: jax.lax.slice_in_dim(x, place, place + (squares - 1) * _OUTPUTS + 1, _OUTPUTS, axis)
    return jnp.stack([every(place) for place in range(_INPUTS)]).reshape(_INPUTS, -1)


def _mapped(rows: Rows, x: jax.Array) -> jax.Array:
    """A linear map of the first axis, as a matrix product: as fast as sums of slices, in far fewer instructions."""
    return jnp.dot(jnp.asarray(rows, x.dtype), x, precision=jax.lax.Precision.HIGHEST)
