"""Reading one picture from a file: any mode to RGB, any size to the model's."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from var_jax.errors import InputError


def read_image(path: str | os.PathLike[str]) -> Image.Image:
    """A picture file as RGB, turned upright; grey, palette, 16-bit and transparent ones included.

    Transparent pixels are laid over white. 16-bit greys keep their high byte.

    Raises:
      InputError: if the file is missing or is not a picture that Pillow can read whole.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such picture")
    if path.is_dir():
        raise InputError(f"{path}: is a folder, expected a picture file")
    try:
        with Image.open(path) as image:
            image.load()
            return to_rgb(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError:
        raise InputError(f"{path}: the picture claims too many pixels to be opened safely; scale it down") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split()).replace(f"'{path}'", "the file")
        raise InputError(f"{path}: cannot be read as a picture ({reason})") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode as RGB."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, np.float64)
        scale = 255.0 / 65535.0 if image.mode != "F" else 255.0 / max(float(values.max()), 1e-12)
        return Image.fromarray(np.clip(values * scale, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def centre_crop(image: Image.Image, size: int) -> np.ndarray:
    """The picture's middle square at size x size pixels, uint8 [size, size, 3], scaled by Lanczos."""
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.LANCZOS)
    left, top = (width - size) // 2, (height - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)), np.uint8)
