"""Small sets of real pictures that ship with two common libraries, written as a folder of PNGs to train on.

`digits`: scikit-learn's 1797 scanned digits. `photographs`: windows of eight pictures from scikit-image, one class per
picture. Both are in the installed packages (extra: examples); nothing is downloaded.
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

# Only pictures inside scikit-image's wheel; it would download others.
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
_WINDOWS, _STEPS, _HELD_OUT_STEPS = 5, 5, 8  # windows along the shorter side; positions per window side, in both splits
_MARGIN = 1.25  # side of a held-out block, in windows

Example = tuple[str, np.ndarray]


def write_examples(kind: str, out: str | os.PathLike[str]) -> dict[str, int]:
    """Writes the pictures of a kind under `out`, one sub-folder per class; returns the number of pictures per folder.

    Args:
      kind: "digits" or "photographs".
      out: a folder that does not exist yet, or is empty; it appears whole or not at all.

    Raises:
      InputError: for an unknown kind, a folder that is not empty, or a library that is not installed.
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
    """Yields folder and picture, uint8 [36, 36], per digit: 32 px by bicubic, and half a scanned pixel around it.

    Raises:
      InputError: if scikit-learn is not installed.
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
    """Yields folder, "train/NAME" or "validation/NAME", and picture, uint8 [72, 72, 3], per window.

    Raises:
      InputError: if scikit-image is not installed.
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
    """Side of a window: a fifth of the picture's shorter side, but not less than the written size."""
    return max(min(size) // _WINDOWS, WINDOW_SIDE)


def window_places(size: tuple[int, int]) -> dict[str, list[tuple[int, int]]]:
    """Left and top of a picture's windows by split, from its (width, height); the splits share no pixel.

    Two blocks are held out, in the middle of the right edge and of the lower edge. Training windows cover
    the rest densely.
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
    """(top, left) of the windows that fit, row by row."""
    width, height = size
    return itertools.product(range(0, height - side + 1, step), range(0, width - side + 1, step))


def _touch(place: tuple[int, int], side: int, corner: tuple[int, int], block: int) -> bool:
    return all(a < b + block and b < a + side for a, b in zip(place, corner, strict=True))


def _missing(kind: str, library: str) -> InputError:
    return InputError(f"{kind}: {library}, which contains them, is not installed; pip install 'var_jax[examples]'")


KINDS = {"digits": digits, "photographs": photographs}
