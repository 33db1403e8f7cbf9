"""Reading one picture from a file: any mode to RGB, any size to the model's."""

from __future__ import annotations

import io
import os

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from var_jax.data.transforms import MOST_STRETCHED
from var_jax.errors import InputError

_COMMON = ("PNG", "JPEG", "WEBP", "GIF", "BMP")  # formats that Pillow decodes itself, without another program


def read_image(path: str | os.PathLike[str]) -> Image.Image:
    """Reads a picture file as RGB, turned upright; grey, palette, 16-bit and transparent ones included.

    Transparent pixels are laid over white. 16-bit greys keep their high byte.

    Raises:
      InputError: if the file is missing or Pillow cannot read it completely.
    """
    if not os.path.exists(path):
        raise InputError(f"{path}: no such picture; check the path")
    if not os.path.isfile(path):
        kind = "a folder" if os.path.isdir(path) else "not a regular file"
        raise InputError(f"{path}: is {kind}, expected a picture file")
    return _decoded(path, path)


def decode_image(content: bytes, name: str, most_pixels: int | None = None) -> Image.Image:
    """Reads a picture from the bytes of a file, like `read_image`.

    Args:
      content: the file's.
      name: the picture's name in errors.
      most_pixels: for untrusted bytes, a limit that is checked before a pixel is decoded; the format must then be PNG,
        JPEG, WebP, GIF or BMP.

    Raises:
      InputError: if Pillow cannot read it completely, the content is none of these formats, or larger than the limit.
    """
    return _decoded(io.BytesIO(content), name, most_pixels)


def _decoded(file: str | os.PathLike[str] | io.BytesIO, name: object, most_pixels: int | None = None) -> Image.Image:
    """The picture, upright and RGB; any error of a decoder becomes an InputError that names it."""
    try:
        with Image.open(file, formats=None if most_pixels is None else _COMMON) as image:
            width, height = image.size
            if most_pixels is not None and width * height > most_pixels:
                raise InputError(f"{name}: has {width} x {height} pixels, the limit is {most_pixels}; scale it down")
            image.load()
            return to_rgb(ImageOps.exif_transpose(image))
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError(f"{name}: cannot be read as a picture (no format that Pillow knows)") from None
    except Image.DecompressionBombError:
        raise InputError(f"{name}: the picture claims too many pixels to be opened safely; scale it down") from None
    except Exception as error:  # decoders raise nearly anything on damage
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{name}: cannot be read as a picture ({reason})") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts a picture of any Pillow mode to RGB."""
    if image.mode.startswith("I"):
        high_bytes = np.clip(np.asarray(image, np.int64), 0, 65535) >> 8
        return Image.fromarray(high_bytes.astype(np.uint8)).convert("RGB")
    if image.mode == "F":  # no fixed range: the brightest pixel is white
        values = np.nan_to_num(np.asarray(image, np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        scaled = np.clip(values * (255.0 / max(float(values.max()), 1e-12)), 0, 255)
        return Image.fromarray(scaled.astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def centre_crop(image: Image.Image, size: int) -> np.ndarray:
    """The picture's middle square at size x size pixels, uint8 [size, size, 3], scaled by Lanczos."""
    longest = MOST_STRETCHED * min(image.size)
    image = image.crop(_middle(image.size, tuple(min(side, longest) for side in image.size)))
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(image.crop(_middle(image.size, (size, size))), np.uint8)


def _middle(whole: tuple[int, int], part: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box of a part centred in the whole: left, top, right, bottom."""
    left, top = ((side - wanted) // 2 for side, wanted in zip(whole, part, strict=True))
    return left, top, left + part[0], top + part[1]
