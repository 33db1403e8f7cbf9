"""Arrays of pictures laid out as one picture for people to look at: grids, and strips by scale."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from var_jax.errors import InputError
from var_jax.formats.atomic import atomic_file, local_target

_GAP = 2  # white pixels between pictures
ANIMATED = (".gif", ".webp", ".apng")
_CAPTION = 14  # height of the line above a column, in pixels


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Pictures in [0, 1] as uint8 by truncation of 255 x, the rule that published figures were made with."""
    return (np.clip(np.asarray(images, np.float32), 0.0, 1.0) * 255.0).astype(np.uint8)


def grid(images_NxHxWx3: np.ndarray, columns: int, captions: Sequence[str] = ()) -> np.ndarray:
    """Pictures (uint8, or float in [0, 1]) row by row on white, as uint8 [rows, columns, 3].

    `captions` stand above the columns.
    """
    images = np.asarray(images_NxHxWx3)
    images = images if images.dtype == np.uint8 else to_uint8(images)
    count, height, width, _ = images.shape
    rows = -(-count // columns)
    top = _CAPTION if captions else 0
    shape = (top + rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, 3)
    canvas = np.full(shape, 255, np.uint8)
    for index, image in enumerate(images):
        y, x = top + (index // columns) * (height + _GAP), (index % columns) * (width + _GAP)
        canvas[y : y + height, x : x + width] = image
    if not captions:
        return canvas
    drawn = Image.fromarray(canvas)
    draw, font = ImageDraw.Draw(drawn), ImageFont.load_default(size=11)
    for column, text in enumerate(captions):
        centre = column * (width + _GAP) + width // 2
        draw.text((centre, top // 2), text, fill="black", font=font, anchor="mm")
    return np.asarray(drawn)


def strips(growth_SxBxHxWx3: np.ndarray, captions: Sequence[str] = ()) -> np.ndarray:
    """Pictures as they grow by scale: one per row, the scales side by side, uint8."""
    growth = np.asarray(growth_SxBxHxWx3)
    scales, count = growth.shape[:2]
    return grid(growth.swapaxes(0, 1).reshape(scales * count, *growth.shape[2:]), scales, captions)


def save_animation(path: str | os.PathLike[str], frames: Sequence[np.ndarray], frame_ms: int = 400) -> None:
    """Writes uint8 frames [H, W, 3] as an endless GIF, WebP or animated PNG; the last one stands four times as long.

    Raises:
      InputError: for another suffix, or a place that cannot be written.
    """
    images = [Image.fromarray(frame) for frame in frames]
    durations = [frame_ms] * (len(images) - 1) + [4 * frame_ms]
    options = {"save_all": True, "append_images": images[1:], "duration": durations, "loop": 0}
    if Path(path).suffix.lower() not in ANIMATED:
        raise InputError(f"{path}: an animation is written as one of {', '.join(ANIMATED)}")
    if Path(path).suffix.lower() == ".webp":
        options["lossless"] = True
    content = _encoded(path, images[0], **options)
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


def save_picture(path: str | os.PathLike[str], image_HxWx3: np.ndarray) -> None:
    """Writes uint8 [H, W, 3] in the format of the file's suffix, whole or not at all.

    Raises:
      InputError: for a suffix that is no picture format, or a place that cannot be written.
    """
    content = _encoded(path, Image.fromarray(image_HxWx3))
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


def check_picture_path(path: str | os.PathLike[str]) -> None:
    """Checks, before long work, that a picture may be written at `path`.

    Raises:
      InputError: for a suffix that is no picture format, or a place that cannot be written.
    """
    _encoded(path, Image.new("RGB", (1, 1)))
    target = local_target(path)
    if os.path.exists(target) and not os.path.isfile(target):
        raise InputError(f"{path}: cannot be written because a folder or a device stands there; choose another path")
    folder = os.path.dirname(target)
    while not os.path.exists(folder):  # missing ones will be made
        folder = os.path.dirname(folder)
    if not (os.path.isdir(folder) and os.access(folder, os.W_OK)):
        raise InputError(f"{path}: cannot be written, {folder} is no folder you may write to; choose another path")


def _encoded(path: str | os.PathLike[str], image: Image.Image, **options: Any) -> bytes:
    """The picture in the format that the suffix names."""
    suffix, content = Path(path).suffix.lower(), io.BytesIO()
    kind = Image.registered_extensions().get(suffix)
    if kind not in Image.SAVE:
        raise InputError(f"{path}: '{suffix}' is not a picture format that can be written; use .png")
    try:
        image.save(content, format=kind, **options)
    except Exception as error:  # every format has limits of its own, and its own way to say so
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: cannot be written as {kind} ({reason}); use .png") from None
    return content.getvalue()
