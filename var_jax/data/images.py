"""Reading one picture: which formats and sizes are read at all, any mode to RGB, any size to the model's."""

from __future__ import annotations

import importlib.util
import io
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from var_jax.data.transforms import MOST_STRETCHED
from var_jax.errors import InputError

# The formats that are tried, whatever a file's name: those that pictures come in and Pillow decodes by itself. Others
# start a program (EPS), or have decoders that few people look at.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM") + ("AVIF",) * bool(importlib.util.find_spec("PIL._avif"))
MOST_PIXELS = 2**27  # of a picture: with its copy in RGB it takes about 1 GiB
_MOST_BYTES = 2**30  # of a file
_TILE = 1024  # side of the parts that are converted at a time
_PNG, _PNG_TEXTS = b"\x89PNG\r\n\x1a\n", (b"iCCP", b"tEXt", b"zTXt", b"iTXt")
_PHOTOMETRIC, _BITS, _SAMPLE_FORMAT, _ORIENTATION = 262, 258, 339, 274  # TIFF's tags
_WHITE_IS_ZERO, _SIGNED = 0, 2
_EXPECTED = f"none of the formats that are read: {', '.join(FORMATS)}"

T = TypeVar("T")

# Pillow warns of half as many pixels as it refuses; the bound above is checked before a pixel is decoded.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def read_image(path: str | os.PathLike[str]) -> Image.Image:
    """Reads a picture file as RGB, turned upright; grey, palette, 16-bit and transparent ones included.

    Transparent pixels are laid over white. 16-bit greys keep their high byte. Of several pictures it is the first.

    Raises:
      InputError: if the file is missing, of no format in FORMATS, has more than MOST_PIXELS, holds integers of 32 bits
        whose white is unknown, or cannot be read completely.
    """
    _require_file(path)
    return _with_picture(path, path, MOST_PIXELS, _decoded)


def read_header(path: str | os.PathLike[str]) -> tuple[str, tuple[int, int]]:
    """Pillow's mode of a picture file, and the width and height that `read_image` gives it.

    Raises:
      InputError: see `read_image`.
    """
    _require_file(path)
    return _with_picture(path, path, MOST_PIXELS, _header)


def decode_image(content: bytes, name: str, most_pixels: int = MOST_PIXELS) -> Image.Image:
    """Reads a picture from the bytes of a file, like `read_image`.

    Args:
      content: the file's.
      name: the picture's name in errors.
      most_pixels: a limit, checked before a pixel is decoded.

    Raises:
      InputError: see `read_image`.
    """
    return _with_picture(io.BytesIO(content), name, most_pixels, _decoded)


def _require_file(path: str | os.PathLike[str]) -> None:
    """Refuses what is not a file, before it is opened: a pipe would wait for ever."""
    if not os.path.exists(path):
        raise InputError(
            f"{path}: {'is a link that leads nowhere' if os.path.islink(path) else 'no such picture'}; check the path"
        )
    if not os.path.isfile(path):
        kind = "a folder" if os.path.isdir(path) else "not a regular file"
        raise InputError(f"{path}: is {kind}, expected a picture file")
    if (size := os.path.getsize(path)) > _MOST_BYTES:
        raise InputError(f"{path}: has {size} bytes, the limit for a picture is {_MOST_BYTES}; scale it down")


def _with_picture(
    file: str | os.PathLike[str] | io.BytesIO, name: object, most_pixels: int, use: Callable[[ImageFile.ImageFile], T]
) -> T:
    """`use` of the opened picture; any error of a decoder becomes an InputError that names it.

    A PNG that fails is tried once more without its texts and its colour profile, of which Pillow reads no large ones.
    """
    try:
        try:
            return _opened(file, most_pixels, use)
        except Exception as error:
            if isinstance(error, _Refused) or (pixels_alone := _without_texts(file)) is None:
                raise
            return _opened(pixels_alone, most_pixels, use)
    except _Refused as error:
        raise InputError(f"{name}: {error}") from None
    except UnidentifiedImageError:
        raise InputError(f"{name}: cannot be read as a picture ({_EXPECTED})") from None
    except Exception as error:  # decoders raise nearly anything on damage
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{name}: cannot be read as a picture ({reason})") from None


class _Refused(Exception):
    """A picture that is whole and is not read; says why."""


def _opened(file: str | os.PathLike[str] | io.BytesIO, most_pixels: int, use: Callable[[ImageFile.ImageFile], T]) -> T:
    try:
        with Image.open(file, formats=FORMATS) as image:
            _check_pixels(image, most_pixels)
            return use(image)
    except Image.DecompressionBombError:
        raise _Refused(f"claims too many pixels, the limit is {most_pixels}; scale it down") from None


def _check_pixels(image: Image.Image, most_pixels: int) -> None:
    width, height = image.size
    if width * height > most_pixels:
        raise _Refused(f"has {width} x {height} pixels, the limit is {most_pixels}; scale it down")


def _without_texts(file: str | os.PathLike[str] | io.BytesIO) -> io.BytesIO | None:
    """A PNG without texts and colour profile; None if it has none, or is no PNG."""
    content = file.getvalue() if isinstance(file, io.BytesIO) else b""
    if not isinstance(file, io.BytesIO):
        with open(file, "rb") as opened:
            content = opened.read(len(_PNG))
            content += opened.read() if content == _PNG else b""
    if not content.startswith(_PNG):
        return None
    kept, at = [_PNG], len(_PNG)
    while at + 12 <= len(content):
        (length,), kind = struct.unpack_from(">I", content, at), content[at + 4 : at + 8]
        if kind not in _PNG_TEXTS:
            kept.append(content[at : at + 12 + length])
        at += 12 + length
    bare = b"".join([*kept, content[at:]])
    return None if len(bare) == len(content) else io.BytesIO(bare)


def _header(image: ImageFile.ImageFile) -> tuple[str, tuple[int, int]]:
    if (
        image.getexif().get(_ORIENTATION, 1) > 4
    ):  # on its side; for some formats Pillow knows that only once it is loaded
        ImageOps.exif_transpose(image, in_place=True)
    _check_integers(image)
    return image.mode, image.size


def _decoded(image: ImageFile.ImageFile) -> Image.Image:
    if image.format == "PNG":
        _check_pixels_of_png(image)
    image.load()
    _check_integers(image)
    sixteen = image.format == "TIFF" and image.mode.startswith("I;16")
    inverted = sixteen and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    ImageOps.exif_transpose(image, in_place=True)
    rgb = to_rgb(image)
    return ImageOps.invert(rgb) if inverted else rgb


def _check_pixels_of_png(image: ImageFile.ImageFile) -> None:
    """Refuses a PNG whose pixels do not match their checksums, which Pillow does not compare."""
    file, place = image.fp, image.fp.tell()
    file.seek(len(_PNG))
    while len(head := file.read(8)) == 8 and head[4:] != b"IEND":
        length = int.from_bytes(head[:4], "big")
        if head[4:] != b"IDAT":
            file.seek(length + 4, os.SEEK_CUR)
        elif zlib.crc32(file.read(length), zlib.crc32(b"IDAT")) != int.from_bytes(file.read(4), "big"):
            raise ValueError("its pixels do not match their checksum")
    file.seek(place)


def _check_integers(image: ImageFile.ImageFile) -> None:
    """Refuses integers that are not plainly 16-bit greys: which of them is white, nothing in the file says."""
    if image.format != "TIFF" or image.mode != "I":
        return
    low, high = image.getextrema()
    signed = image.tag_v2.get(_SAMPLE_FORMAT) == (_SIGNED,) and image.tag_v2.get(_BITS) == (16,)
    if signed or low < 0 or not 255 < high < 2**16:
        kind = "signed 16-bit" if signed else "32-bit"
        raise _Refused(
            f"holds {kind} integers from {low} to {high}, whose white is unknown; save 8 or 16 bits per pixel"
        )


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts a picture of any Pillow mode to RGB."""
    if image.mode.startswith("I"):
        return _by_tiles(image, _high_bytes)
    if image.mode == "F":  # no fixed range: the brightest pixel is white
        scale = 255.0 / max(*(float(_finite(image.crop(box)).max()) for box in _tiles(image.size)), 1e-12)
        return _by_tiles(image, lambda tile: np.clip(_finite(tile) * scale, 0, 255))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        return _by_tiles(image, _over_white)
    return image.convert("RGB")


def _tiles(size: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    """Boxes that cover a picture."""
    width, height = size
    return [
        (left, top, min(left + _TILE, width), min(top + _TILE, height))
        for top in range(0, height, _TILE)
        for left in range(0, width, _TILE)
    ]


def _by_tiles(image: Image.Image, convert: Callable[[Image.Image], np.ndarray | Image.Image]) -> Image.Image:
    """The picture in RGB, converted part by part: a whole one of many pixels would take several copies."""
    rgb = Image.new("RGB", image.size)
    for box in _tiles(image.size):
        tile = convert(image.crop(box))
        if isinstance(tile, np.ndarray):
            tile = Image.fromarray(tile.astype(np.uint8)).convert("RGB")
        rgb.paste(tile, box)
    return rgb


def _high_bytes(image: Image.Image) -> np.ndarray:
    return np.clip(np.asarray(image, np.int64), 0, 65535) >> 8


def _finite(image: Image.Image) -> np.ndarray:
    return np.nan_to_num(np.asarray(image, np.float64), nan=0.0, posinf=0.0, neginf=0.0)


def _over_white(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


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
