"""From a picture of any size to the square that a model sees: scaled, cropped, perhaps mirrored."""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image

from var_jax.errors import InputError

_MOST_STRETCHED = 16  # of a longer strip the middle is taken, or a thin one would not fit the memory once scaled


@dataclasses.dataclass(frozen=True)
class Crop:
    """The reference's transform: shorter side to round(`enlarge` x `size`) by Lanczos, then a square of `size`.

    With `enlarge` 1 a picture that has the size already passes untouched, and of another one everything along the
    shorter side is kept.

    Args:
      size: side of the square in pixels.
      enlarge: how much larger than the square the shorter side is made, 1 or more; the reference takes 1.125.
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
        """uint8 [H, W, 3] to uint8 [size, size, 3]: a square from anywhere, mirrored or not, as `rng` decides."""
        image = self._scaled(image)
        top, left = (int(rng.integers(side - self.size + 1)) for side in image.shape[:2])
        square = image[top : top + self.size, left : left + self.size]
        return square[:, ::-1] if self.flip and rng.random() < 0.5 else square

    def validation(self, image: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3] to uint8 [size, size, 3]: the square in the middle."""
        image = self._scaled(image)
        top, left = (round((side - self.size) / 2) for side in image.shape[:2])
        return image[top : top + self.size, left : left + self.size]

    def _scaled(self, image: np.ndarray) -> np.ndarray:
        image = _middle(image, _MOST_STRETCHED * min(image.shape[:2]))
        height, width = image.shape[:2]
        shorter, wanted = min(height, width), round(self.enlarge * self.size)
        if shorter == wanted:
            return image
        # The longer side is cut off to whole pixels, not rounded, as the reference's library does it.
        width, height = (wanted if side == shorter else int(wanted * side / shorter) for side in (width, height))
        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


def _middle(image: np.ndarray, longest: int) -> np.ndarray:
    """At most `longest` pixels of each side."""
    top, left = (max(side - longest, 0) // 2 for side in image.shape[:2])
    return np.ascontiguousarray(image[top : top + longest, left : left + longest])
