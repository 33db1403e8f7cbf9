"""Reads pictures, skipping damaged ones, and crops them: a crop is a pure function of seed, picture and number."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from var_jax.data.sources import Source
from var_jax.data.transforms import Crop
from var_jax.errors import InputError

_MOST_TRIES = 100  # damaged pictures in a row; more are no coincidence


class Picture(NamedTuple):
    """A picture that could be read.

    Attributes:
      image: uint8 [H, W, 3].
      label: the picture's class id.
      index: the picture's index in the source.
      skipped: index of the damaged picture that this one replaces, or -1.
    """

    image: np.ndarray
    label: int
    index: int
    skipped: int


def read_or_next(source: Source, index: int) -> Picture:
    """Reads picture `index`, or the next one that can be read (after the last comes the first).

    Raises:
      InputError: the error of picture `index`, if a hundred in a row cannot be read.
    """
    first = None
    for used in range(index, index + min(_MOST_TRIES, len(source))):
        used %= len(source)
        try:
            image, label = source[used]
        except InputError as error:
            first = first or error
            continue
        return Picture(image, int(label), used, -1 if used == index else index)
    raise first


@dataclasses.dataclass(frozen=True)
class TrainingCrops:
    """The crops of a source's pictures: crop j of picture i depends on (seed, i, j) alone.

    Training takes crop j in its j-th epoch (from 0), so that the first epochs of a run on pictures and a store of
    as many crops per picture, made with the run's seed, hold the same crops.
    """

    source: Source
    crop: Crop
    seed: int

    def read(self, index: int) -> Picture:
        """Picture `index` uncropped, or the one that replaces it."""
        return read_or_next(self.source, index)

    def cut(self, picture: Picture, number: int) -> np.ndarray:
        """Crop `number` of a picture, uint8 [size, size, 3]."""
        rng = np.random.default_rng((self.seed, picture.index, number))
        return self.crop.training(picture.image, rng)


def seeds(seed: int) -> tuple[int, int]:
    """The seeds of a run's order and of its crops.

    Raises:
      InputError: if `seed` is negative.
    """
    if seed < 0:
        raise InputError(f"seed {seed} must be 0 or more")
    order, crops = np.random.SeedSequence(seed).generate_state(2, np.uint32)
    return int(order), int(crops)
