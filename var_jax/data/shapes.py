"""A data set without files: ten classes of drawn pictures, distinguished by form and texture alone.

Picture i of a split is a pure function of (seed, split, i) and of its size; the same picture at another size shows
the same thing. Position, size, rotation, colours and background vary within a class. A picture's mean colour is drawn
independently of its class and then met exactly (up to rounding to 8 bits), so that colour gives no hint of the class.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from var_jax.data.sources import IMAGES, Identity
from var_jax.errors import InputError

DEFAULT_COUNT = {"train": 50_000, "validation": 2_000}

_PALETTE_TRIES = 32
_MIN_CONTRAST = 0.5  # distance of foreground and background colour, which is sqrt(3) at most
_HEADROOM = 0.06  # kept free at both ends of the range for the background's shading


def draw(label: int, size: int, rng: np.random.Generator, variety: float = 1.0) -> np.ndarray:
    """Draws one picture of class `label`, uint8 [size, size, 3]; everything that varies comes from `rng`."""
    mean, shading = rng.uniform(0.3, 0.7, 3), _shading(size, rng)
    distance = _DISTANCES[CLASS_NAMES[label]](size, _Narrowed(rng, variety))
    inside = np.clip(0.5 - distance * size, 0.0, 1.0)  # antialiased over one pixel
    foreground, background = _colours(mean, float(inside.mean()), rng)
    shading = shading * (1.0 - inside)
    picture = background + (shading - shading.mean())[..., None] + inside[..., None] * (foreground - background)
    return (np.clip(picture, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


@dataclasses.dataclass(frozen=True)
class _Narrowed:
    """Draws from the middle part of every range, `share` of it wide."""

    rng: np.random.Generator
    share: float

    def uniform(self, low: float, high: float, count: int | None = None) -> Any:
        """Like the generator's own `uniform`."""
        middle, half = (low + high) / 2, (high - low) / 2 * self.share
        return self.rng.uniform(middle - half, middle + half, count)


def _colours(mean: np.ndarray, share: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two colours that mix to `mean` when the first covers `share` of the picture, with contrast between them."""
    low, high = _HEADROOM, 1.0 - _HEADROOM
    first = rng.uniform(low, high, (_PALETTE_TRIES, 3))
    second = (mean - share * first) / (1.0 - share)
    # Pull pairs whose second colour is out of range towards the mean, channel by channel.
    room = np.where(second > mean, high - mean, mean - low)
    pull = np.minimum(1.0, room / np.maximum(np.abs(second - mean), 1e-9))
    first, second = mean + pull * (first - mean), mean + pull * (second - mean)
    contrast = np.linalg.norm(first - second, axis=1)
    chosen = int(np.argmax(contrast >= _MIN_CONTRAST)) if contrast.max() >= _MIN_CONTRAST else int(contrast.argmax())
    return first[chosen], second[chosen]


def _shading(size: int, rng: np.random.Generator) -> np.ndarray:
    """[size, size] brightness of the background: flat, a gradient, or a soft noise, each a third of the time."""
    kind, angle, strength = rng.integers(3), rng.uniform(0, 2 * np.pi), rng.uniform(0.04, 0.11)
    bumps = rng.uniform(-1, 1, (4, 4))
    if kind == 0:
        return np.zeros((size, size))
    if kind == 1:
        x, y = _grid(size)
        return strength * (np.cos(angle) * x + np.sin(angle) * y) / np.sqrt(0.5)
    rise = _smooth_steps(size, len(bumps))
    return strength * (rise @ bumps @ rise.T)


@functools.cache
def _smooth_steps(size: int, knots: int) -> np.ndarray:
    """[size, knots] weights that blend `knots` values smoothly along one side."""
    place = (np.arange(size) + 0.5) / size * (knots - 1)
    near = 1.0 - np.minimum(np.abs(place[:, None] - np.arange(knots)), 1.0)
    return near * near * (3.0 - 2.0 * near)


@functools.cache
def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """x [1, size] and y [size, 1] of the pixel centres, from -0.5 to 0.5."""
    line = (np.arange(size) + 0.5) / size - 0.5
    return line[None, :], line[:, None]


def _turned(size: int, rng: _Narrowed, x0: float, y0: float, symmetry: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates [size, size] about (x0, y0), turned by a random angle below one `symmetry`-th of a turn."""
    (x, y), angle = _grid(size), rng.uniform(0, 2 * np.pi / symmetry)
    x, y, cos, sin = x - x0, y - y0, np.cos(angle), np.sin(angle)
    return cos * x + sin * y, cos * y - sin * x


def _placed(size: int, rng: _Narrowed, symmetry: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Turned coordinates about a random centre, and the radius of a circle about it that stays in the picture."""
    radius = rng.uniform(0.27, 0.39)
    x0, y0 = rng.uniform(radius - 0.5, 0.5 - radius, 2)
    return *_turned(size, rng, x0, y0, symmetry), radius


# Signed distances, [size, size], negative inside, in picture sides.


def _disc(size: int, rng: _Narrowed) -> np.ndarray:
    x, y, radius = _placed(size, rng, 1)
    return np.hypot(x, y) - 0.9 * radius


def _ring(size: int, rng: _Narrowed) -> np.ndarray:
    x, y, radius = _placed(size, rng, 1)
    half_width = radius * rng.uniform(0.14, 0.2)
    return np.abs(np.hypot(x, y) - (radius - half_width)) - half_width


def _folded(x: np.ndarray, y: np.ndarray, corners: int) -> tuple[np.ndarray, np.ndarray]:
    """The plane folded onto one half of one of `corners` equal sectors, a corner lying at angle 0."""
    sector = 2 * np.pi / corners
    angle = np.abs(np.mod(np.arctan2(y, x) + sector / 2, sector) - sector / 2)
    radius = np.hypot(x, y)
    return radius * np.cos(angle), radius * np.sin(angle)


def _star_polygon(x: np.ndarray, y: np.ndarray, corners: int, outer: float, inner: float) -> np.ndarray:
    """Distance to a star whose corners lie at `outer` and whose notches lie at `inner`, half a sector further."""
    u, v = _folded(x, y, corners)
    notch = inner * np.cos(np.pi / corners), inner * np.sin(np.pi / corners)
    along = np.array([notch[0] - outer, notch[1]])
    normal = np.array([along[1], -along[0]]) / np.linalg.norm(along)
    return (u - outer) * normal[0] + v * normal[1]


def _square(size: int, rng: _Narrowed) -> np.ndarray:
    x, y, radius = _placed(size, rng, 4)
    return np.maximum(np.abs(x), np.abs(y)) - radius * np.sqrt(0.5)


def _triangle(size: int, rng: _Narrowed) -> np.ndarray:
    x, y, radius = _placed(size, rng, 3)
    return _star_polygon(x, y, 3, 1.1 * radius, 0.55 * radius)


def _star(size: int, rng: _Narrowed) -> np.ndarray:
    x, y, radius = _placed(size, rng, 5)
    return _star_polygon(x, y, 5, 1.12 * radius, 1.12 * radius * rng.uniform(0.4, 0.46))


def _cross(size: int, rng: _Narrowed) -> np.ndarray:
    x, y, radius = _placed(size, rng, 4)
    x, y, half_width = np.abs(x), np.abs(y), radius * rng.uniform(0.22, 0.28)
    return np.maximum(np.maximum(x, y) - radius, np.minimum(x, y) - half_width)


def _crescent(size: int, rng: _Narrowed) -> np.ndarray:
    x, y, radius = _placed(size, rng, 1)
    bite, shift = radius * rng.uniform(0.75, 0.85), radius * rng.uniform(0.45, 0.55)
    return np.maximum(np.hypot(x, y) - radius, bite - np.hypot(x - shift, y))


def _from_line(u: np.ndarray, pitch: float) -> np.ndarray:
    """Distance to the nearest of the lines u = n pitch."""
    return np.abs(u - pitch * np.round(u / pitch))


def _stripes(size: int, rng: _Narrowed) -> np.ndarray:
    pitch = rng.uniform(0.24, 0.42)
    u, _ = _turned(size, rng, *rng.uniform(-0.5, 0.5, 2) * pitch, 2)
    return _from_line(u, pitch) - pitch * rng.uniform(0.2, 0.3)


def _checkerboard(size: int, rng: _Narrowed) -> np.ndarray:
    pitch = rng.uniform(0.18, 0.28)
    u, v = _turned(size, rng, *rng.uniform(-0.5, 0.5, 2) * 2 * pitch, 4)
    dark = (np.floor(u / pitch) + np.floor(v / pitch)) % 2
    return (2 * dark - 1) * np.minimum(_from_line(u, pitch), _from_line(v, pitch))


def _dots(size: int, rng: _Narrowed) -> np.ndarray:
    pitch = rng.uniform(0.26, 0.38)
    u, v = _turned(size, rng, *rng.uniform(-0.5, 0.5, 2) * pitch, 4)
    return np.hypot(_from_line(u, pitch), _from_line(v, pitch)) - pitch * rng.uniform(0.26, 0.32)


_DISTANCES: dict[str, Callable[[int, _Narrowed], np.ndarray]] = {
    "disc": _disc,
    "ring": _ring,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "crescent": _crescent,
    "stripes": _stripes,
    "checkerboard": _checkerboard,
    "dots": _dots,
}
CLASS_NAMES = tuple(_DISTANCES)


@dataclasses.dataclass(frozen=True)
class Shapes:
    """The drawn pictures of one split; classes take turns, so that counts are equal.

    Args:
      split: "train" or "validation"; they share no picture.
      size: side of the pictures in pixels, 8 or more.
      count: number of pictures; by default 50000 to train on and 2000 to validate with.
      seed: another seed is another data set of the same kind.
      variety: above 0, at most 1: the share of their ranges, about the middle, that positions, sizes and rotations
        use; a smaller variety needs less training. Colours and backgrounds do not depend on it.
    """

    split: str
    size: int = 64
    count: int | None = None
    seed: int = 0
    variety: float = 1.0

    holds = IMAGES
    class_names = CLASS_NAMES

    def __post_init__(self) -> None:
        if self.size < 8:
            raise InputError(f"shapes: size {self.size} is too small to draw on, use 8 or more")
        if self.count is None:
            object.__setattr__(self, "count", DEFAULT_COUNT[self.split])
        if self.count < len(CLASS_NAMES):
            raise InputError(f"shapes: count {self.count} leaves a class empty, use {len(CLASS_NAMES)} or more")
        if self.seed < 0:
            raise InputError(f"shapes: seed {self.seed} is negative, use 0 or more")
        if not 0 < self.variety <= 1:
            raise InputError(f"shapes: variety {self.variety} is not above 0 and at most 1")

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Picture `index` as uint8 [size, size, 3], and its class id."""
        index = range(self.count)[index]
        rng = np.random.default_rng((self.seed, list(DEFAULT_COUNT).index(self.split), index))
        label = index % len(CLASS_NAMES)
        return draw(label, self.size, rng, self.variety), label

    def labels(self) -> np.ndarray:
        """[N] int32 class ids of all pictures."""
        return (np.arange(self.count) % len(CLASS_NAMES)).astype(np.int32)

    def identity(self) -> Identity:
        """Number of pictures; the options, which the config holds, say the rest."""
        return {"": (self.count, "")}
