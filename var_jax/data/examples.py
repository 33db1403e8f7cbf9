"""Small sets of real pictures that two common libraries bring along, written as a folder of PNGs to train on.

`digits`: scikit-learn's 1797 scanned digits. `photographs`: windows of eight pictures from scikit-image, a class
each. Both are in the installed packages (extra: examples); nothing is downloaded.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from var_jax.errors import InputError
from var_jax.formats.atomic import atomic_directory

# Only pictures that lie in scikit-image's wheel; others it would download.
PHOTOGRAPHS = (
    "astronaut",
    "brick",
    "chelsea",
    "coffee",
    "hubble_deep_field",
    "immunohistochemistry",
    "retina",
    "rocket",
)
DIGIT_SIDE, WINDOW_SIDE = 36, 72  # 32 and 64 px times the 1.125 that training crops from: nothing is scaled again
_WINDOWS, _STEPS, _HELD_OUT_STEPS = 5, 5, 8  # windows along the shorter side; places a window's side, in both splits
_MARGIN = 1.25  # side of a held-out block, in windows

Example = tuple[str, np.ndarray]


def write_examples(kind: str, out: str | os.PathLike[str]) -> dict[str, int]:
    """Writes the pictures of a kind under `out`, one sub-folder a class, and returns how many each folder got.

    Args:
      kind: "digits" or "photographs".
      out: a folder that does not exist yet, or is empty; it appears whole or not at all.

    Raises:
      InputError: for an unknown kind, a folder that holds something, and where the library is not installed.
    """
    if kind not in KINDS:
        raise InputError(f"kind '{kind}' of example pictures is unknown: expected {' or '.join(KINDS)}")
    counts: dict[str, int] = {}
    with atomic_directory(Path(out)) as folder:
        for name, picture in KINDS[kind]():
            number = counts[name] = counts.get(name, 0) + 1
            (folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(folder / name / f"{number:04d}.png")
    return counts


def digits() -> Iterator[Example]:
    """The folder and the picture, uint8 [36, 36], of every digit: 32 px by bicubic, and half a scanned pixel around it.

    Raises:
      InputError: without scikit-learn.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise _missing("digits", "scikit-learn") from None
    scans = load_digits()
    for scan, label in zip(scans.images, scans.target, strict=True):
        grey = Image.fromarray(np.pad(scan * (255.0 / 16.0), 1).round().astype(np.uint8))
        large = np.asarray(grey.resize((40, 40), Image.Resampling.BICUBIC))
        yield str(label), large[2:-2, 2:-2]


def photographs() -> Iterator[Example]:
    """The folder, "train/NAME" or "validation/NAME", and the picture, uint8 [72, 72, 3], of every window.

    Raises:
      InputError: without scikit-image.
    """
    try:
        from skimage import data
    except ImportError:
        raise _missing("photographs", "scikit-image") from None
    for name in PHOTOGRAPHS:
        picture = Image.fromarray(getattr(data, name)()).convert("RGB")
        side = window_side(picture.size)
        for split, places in window_places(picture.size).items():
            for left, top in places:
                window = picture.crop((left, top, left + side, top + side))
                window = window.resize((WINDOW_SIDE, WINDOW_SIDE), Image.Resampling.LANCZOS)
                yield f"{split}/{name}", np.asarray(window)


def window_side(size: tuple[int, int]) -> int:
    """A fifth of a picture's shorter side, and not less than what is written."""
    return max(min(size) // _WINDOWS, WINDOW_SIDE)


def window_places(size: tuple[int, int]) -> dict[str, list[tuple[int, int]]]:
    """Left and top of the windows of a picture (width, height), by split; no two of different splits share a pixel.

    Held out are two blocks, in the middle of the right edge and of the lower edge. Training windows lie
    closely all over the rest.
    """
    (width, height), side = size, window_side(size)
    block = round(_MARGIN * side)
    blocks = ((width - block, (height - block) // 2), ((width - block) // 2, height - block))
    held_out = [
        (left + x, top + y) for left, top in blocks for y, x in _grid((block, block), side, side // _HELD_OUT_STEPS)
    ]
    everywhere = [(left, top) for top, left in _grid(size, side, side // _STEPS)]
    return {
        "train": [place for place in everywhere if not any(_touch(place, side, corner, block) for corner in blocks)],
        "validation": held_out,
    }


def _grid(size: tuple[int, int], side: int, step: int) -> Iterator[tuple[int, int]]:
    """(top, left) of windows that fit, row by row."""
    width, height = size
    return itertools.product(range(0, height - side + 1, step), range(0, width - side + 1, step))


def _touch(place: tuple[int, int], side: int, corner: tuple[int, int], block: int) -> bool:
    return all(a < b + block and b < a + side for a, b in zip(place, corner, strict=True))


def _missing(kind: str, library: str) -> InputError:
    return InputError(f"{kind}: {library}, which brings them, is not installed; pip install 'var_jax[examples]'")


KINDS = {"digits": digits, "photographs": photographs}
