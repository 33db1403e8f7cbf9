"""The scale pyramid: the side lengths of the token maps, coarse to fine, and all that follows from them.

Lengths, slices, level ids, the attention mask, the position of a scale between coarse and fine, and
the two resize operators are computed here, so that no other file knows a pyramid by heart. Both
resizes are linear and separable: one small constant matrix for the rows and one for the columns.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable

import numpy as np

from var_jax.errors import InputError

# Published pyramids by picture side, for a tokenizer that shrinks pictures 16 times.
PUBLISHED_SIDES: dict[int, tuple[int, ...]] = {
    256: (1, 2, 3, 4, 5, 6, 8, 10, 13, 16),
    512: (1, 2, 3, 4, 6, 9, 13, 18, 24, 32),
    1024: (1, 2, 3, 4, 5, 7, 9, 12, 16, 21, 27, 36, 48, 64),
}

_LARGEST_SIDE = 1024  # a million tokens per scale: more is a typing error, and would fill the memory
_CUBIC_A = -0.75  # sharpness of the cubic kernel the published tokenizer was trained with


@dataclasses.dataclass(frozen=True)
class Pyramid:
    """Sides of the square token maps, coarse to fine; hashable, so it may be a static argument.

    Scales are numbered k = 0 .. S-1. One scale alone is a valid pyramid (a plain VQ-VAE).

    Raises:
      InputError: if `sides` is empty, holds anything but positive integers, or shrinks somewhere.
    """

    sides: tuple[int, ...]

    def __post_init__(self) -> None:
        try:
            given = tuple(self.sides)
            sides = tuple(int(side) for side in given)
        except (TypeError, ValueError):
            raise InputError(f"pyramid {self.sides!r}: sides must be a list of integers like 1,2,3,4") from None
        if not sides or any(side < 1 for side in sides) or any(a != b for a, b in zip(sides, given, strict=True)):
            raise InputError(f"pyramid {given}: needs at least one side, and every side a positive integer")
        if max(sides) > _LARGEST_SIDE:
            raise InputError(f"pyramid {sides}: a side of {max(sides)} is beyond the largest, {_LARGEST_SIDE}")
        if any(b < a for a, b in zip(sides, sides[1:], strict=False)):
            raise InputError(f"pyramid {sides}: sides must go from coarse to fine and never shrink")
        object.__setattr__(self, "sides", sides)

    @classmethod
    def parse(cls, text: Pyramid | str | int | Iterable[int]) -> Pyramid:
        """Makes a pyramid from a published picture side ("256", "512", "1024") or a list of sides ("1,2,3,4")."""
        if isinstance(text, Pyramid):
            return text
        if isinstance(text, (str, int)):
            parts = [part for part in str(text).replace(",", " ").split() if part]
            numbers = bool(parts) and all(part.isascii() and part.isdecimal() and len(part) < 10 for part in parts)
            if len(parts) == 1 and numbers and int(parts[0]) in PUBLISHED_SIDES:
                return cls(PUBLISHED_SIDES[int(parts[0])])
            if not numbers:
                published = ", ".join(map(str, PUBLISHED_SIDES))
                raise InputError(f"pyramid '{text}': expected {published} or a list of sides like 1,2,3,4")
            return cls(tuple(int(part) for part in parts))
        return cls(tuple(text))

    def __len__(self) -> int:
        return len(self.sides)

    def __str__(self) -> str:
        return ",".join(map(str, self.sides))

    @property
    def final_side(self) -> int:
        """Side of the finest token map, which is the side of the feature map."""
        return self.sides[-1]

    @property
    def names(self) -> tuple[str, ...]:
        """Each scale's size as people read it: "1x1", "2x2"."""
        return tuple(f"{side}x{side}" for side in self.sides)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Number of tokens per scale."""
        return tuple(side * side for side in self.sides)

    @property
    def length(self) -> int:
        """Number of tokens of all scales, L."""
        return sum(self.lengths)

    @property
    def offsets(self) -> tuple[int, ...]:
        """Position of each scale's first token in the sequence of L."""
        return tuple(int(total) for total in np.cumsum((0, *self.lengths[:-1])))

    def slice(self, k: int) -> slice:
        """Positions of scale k in the sequence of L."""
        return slice(self.offsets[k], self.offsets[k] + self.lengths[k])

    def ratio(self, k: int) -> float:
        """Position of scale k between coarse (0) and fine (1): k / (S-1), and 1 for a single scale."""
        return k / (len(self) - 1) if len(self) > 1 else 1.0

    @property
    def level_ids(self) -> np.ndarray:
        """[L] int32: the scale that each position belongs to."""
        return np.repeat(np.arange(len(self), dtype=np.int32), self.lengths)

    @property
    def block_causal_mask(self) -> np.ndarray:
        """[L, L] bool: True where the row's position may attend to the column's (own and coarser scales)."""
        level_ids = self.level_ids
        return level_ids[:, None] >= level_ids[None, :]

    def split(self, array_BxLx: np.ndarray) -> list:
        """Splits [B, L, ...] into one array per scale, coarse to fine."""
        if array_BxLx.shape[1] != self.length:
            raise InputError(f"expected {self.length} positions for pyramid {self}, got {array_BxLx.shape[1]}")
        return [array_BxLx[:, self.slice(k)] for k in range(len(self))]


@functools.cache
def area_matrix(source: int, target: int) -> np.ndarray:
    """[target, source] float32 weights of adaptive average pooling along one axis.

    Output i averages the inputs floor(i n/m) .. ceil((i+1) n/m) - 1.
    """
    matrix = np.zeros((target, source), np.float64)
    for i in range(target):
        first, last = (i * source) // target, -((-(i + 1) * source) // target)
        matrix[i, first:last] = 1.0 / (last - first)
    return _frozen(matrix)


@functools.cache
def bicubic_matrix(source: int, target: int) -> np.ndarray:
    """[target, source] float32 weights of cubic interpolation along one axis.

    Kernel a = -0.75, half-pixel centres, taps beyond the border clamped to it, no antialiasing.
    """
    matrix = np.zeros((target, source), np.float64)
    for i in range(target):
        centre = (i + 0.5) * source / target - 0.5
        base = int(np.floor(centre))
        for tap in range(base - 1, base + 3):
            matrix[i, min(max(tap, 0), source - 1)] += _cubic_weight(abs(centre - tap))
    return _frozen(matrix)


def _cubic_weight(distance: float) -> float:
    a, t = _CUBIC_A, distance
    if t <= 1:
        return ((a + 2) * t - (a + 3)) * t * t + 1
    if t < 2:
        return ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return 0.0


def _frozen(matrix: np.ndarray) -> np.ndarray:
    matrix = matrix.astype(np.float32)
    matrix.setflags(write=False)
    return matrix
