"""Turns a picture of any size into the square that a model sees: scaled, cropped, optionally mirrored."""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image

from var_jax.errors import InputError

MOST_STRETCHED = 16  # a longer strip is cropped to its middle, or a thin one would not fit the memory once scaled


@dataclasses.dataclass(frozen=True)
class Crop:
    """The reference's transform: shorter side to round(`enlarge` x `size`) by Lanczos, then a square of `size`.

    With `enlarge` 1, a picture that already has the size passes unchanged, and any other keeps its whole shorter side.

    Args:
      size: side of the square in pixels.
      enlarge: ratio of the shorter side to the square's side, 1 or more; 1.125 in the reference.
      flip: whether training mirrors every other picture, left to right; the reference does not.
    """

    size: int
    enlarge: float = 1.125
    flip: bool = False

    def __post_init__(self) -> None:
        if self.size < 1:
            raise InputError(f"size {self.size} of a picture must be 1 or more")
        if not self.enlarge >= 1.0:
            raise InputError(f"enlarge {self.enlarge} must be 1 or more, a crop cannot be larger than the picture")

    def training(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 [H, W, 3] to uint8 [size, size, 3]: a random square, mirrored at random if `flip` is set."""
        image, height, width = self._scaled(image)
        top, left = (int(rng.integers(side - self.size + 1)) for side in (height, width))
        square = self._square(image, height, width, top, left)
        return square[:, ::-1] if self.flip and rng.random() < 0.5 else square

    def validation(self, image: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3] to uint8 [size, size, 3]: the square in the middle."""
        image, height, width = self._scaled(image)
        top, left = (round((side - self.size) / 2) for side in (height, width))
        return self._square(image, height, width, top, left)

    def _scaled(self, image: np.ndarray) -> tuple[np.ndarray, int, int]:
        """The picture, a strip cropped to its middle, and the height and width to scale it to."""
        image = _middle(image, MOST_STRETCHED * min(image.shape[:2]))
        height, width = image.shape[:2]
        shorter, wanted = min(height, width), round(self.enlarge * self.size)
        # The longer side is cut off to whole pixels, not rounded, as the reference's library does it.
        height, width = (wanted if side == shorter else int(wanted * side / shorter) for side in (height, width))
        return image, height, width

    def _square(self, image: np.ndarray, height: int, width: int, top: int, left: int) -> np.ndarray:
        """The square at (top, left) of the picture scaled to height x width.

        Only that square is computed, along the rows first, as Pillow scales a whole picture. The pixels equal those of
        the whole scaled picture, except that positions are rounded to single precision, which moves one pixel in a
        thousand by one of 256 levels.
        """
        if image.shape[:2] == (height, width):
            return image[top : top + self.size, left : left + self.size]
        columns, rows = _span(image.shape[1], width, left, self.size), _span(image.shape[0], height, top, self.size)
        picture = Image.fromarray(image)
        box = (columns[0], 0, columns[1], picture.height)
        picture = picture.resize((self.size, picture.height), Image.Resampling.LANCZOS, box=box)
        box = (0, rows[0], self.size, rows[1])
        return np.asarray(picture.resize((self.size, self.size), Image.Resampling.LANCZOS, box=box))


def _span(side: int, scaled: int, start: int, size: int) -> tuple[float, float]:
    """The interval of a side that becomes pixels `start` to `start + size` of the side scaled to `scaled` pixels."""
    return start * side / scaled, min((start + size) * side / scaled, side)  # not beyond the end by a rounding


def _middle(image: np.ndarray, longest: int) -> np.ndarray:
    """Crops each side to at most `longest` pixels about the middle."""
    top, left = (max(side - longest, 0) // 2 for side in image.shape[:2])
    return np.ascontiguousarray(image[top : top + longest, left : left + longest])
