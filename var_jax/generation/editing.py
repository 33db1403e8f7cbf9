"""Editing without training for it: parts of a picture keep their tokens, the others are drawn.

`sampler.generate` with a `KnownPicture` encodes, draws and decodes in one XLA program. Around it, on the host: a window
of the picture is brought to the size of the model with the masked pixels blanked, and the result is pasted in with a
soft edge. A mask says which tokens of each scale stay, so every task comes down to a mask:

* in-painting redraws a region, out-painting all but a region, class editing a region as another class;
* a variation keeps the first scales and draws the finer ones;
* `upscaling.py` does the same with a picture that has no fine detail yet.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from PIL import Image

from var_jax.errors import InputError
from var_jax.generation import masks
from var_jax.generation.checks import check_size, checked_mask, is_whole
from var_jax.generation.pictures import to_uint8
from var_jax.pyramid import Pyramid

MASKED_TASKS = ("inpaint", "outpaint", "class", "vary")
TASKS = (*MASKED_TASKS, "upscale")
_EDGES_PER_SIDE = 32  # the soft edge is one part in so many of the window: half a token of 16
_ROOM = 2  # the side of the window in sides of the redrawn region

# Pictures uint8 [B, M, M, 3] at the size of the model, keep_mask [B, L] bool -> pictures [B, M, M, 3] in [0, 1].
Redraw = Callable[[np.ndarray, np.ndarray], np.ndarray | jax.Array]


@dataclasses.dataclass(frozen=True)
class Window:
    """A rectangle of a picture, of which the model sees a square around its middle; it may reach beyond the picture."""

    left: int
    top: int
    width: int
    height: int

    @property
    def side(self) -> int:
        """Of the square that the model sees."""
        return max(self.width, self.height)

    def within(self, height: int, width: int) -> Window:
        """The part of the window that lies in a picture of that size."""
        left, top = max(self.left, 0), max(self.top, 0)
        right, bottom = min(self.left + self.width, width), min(self.top + self.height, height)
        return Window(left, top, right - left, bottom - top)

    def cut(self, array_HxWx: np.ndarray) -> np.ndarray:
        """The part [height, width, ...] in the window; beyond the picture its border pixels are repeated."""
        height, width = array_HxWx.shape[:2]
        rows = np.clip(np.arange(self.top, self.top + self.height), 0, height - 1)
        columns = np.clip(np.arange(self.left, self.left + self.width), 0, width - 1)
        return array_HxWx[rows][:, columns]

    def outside(self, height: int, width: int) -> np.ndarray:
        """[height, width] of the window, bool: True beyond a picture of that size."""
        rows, columns = np.arange(self.height) + self.top, np.arange(self.width) + self.left
        inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))[None]
        return ~inside

    def put_back(self, array_HxWx: np.ndarray, part: np.ndarray) -> np.ndarray:
        """A copy of the picture with `part` [height, width, ...] in the place of the window."""
        inside = self.within(*array_HxWx.shape[:2])
        top, left, bottom, right = inside.top, inside.left, inside.top + inside.height, inside.left + inside.width
        result = array_HxWx.copy()
        result[top:bottom, left:right] = part[top - self.top : bottom - self.top, left - self.left : right - self.left]
        return result


def window_around(mask_HxW: np.ndarray, size: int) -> Window:
    """A square of twice the longer side of the mask around its middle, moved into the picture.

    Its side is at least `size`, at which nothing has to be scaled, and at most that of the picture. Where no square
    within the picture holds the mask, it is the smallest square that does; of one larger than `size` it is the part
    in the picture alone, so that a strip takes the memory of a strip.
    """
    height, width = mask_HxW.shape
    rows, columns = np.flatnonzero(mask_HxW.any(axis=1)), np.flatnonzero(mask_HxW.any(axis=0))
    spans = (rows[0], rows[-1] + 1), (columns[0], columns[-1] + 1)
    longest = max(end - start for start, end in spans)
    side = int(max(longest, min(height, width, max(size, _ROOM * longest))))

    def start_of(span: tuple[int, int], length: int) -> int:
        if side >= length:
            return (length - side) // 2
        return int(np.clip((span[0] + span[1] - side) // 2, 0, length - side))

    square = Window(start_of(spans[1], width), start_of(spans[0], height), side, side)
    return square if side <= size else square.within(height, width)


def region_of(task: str, mask_HxW: Any, shape: tuple[int, int]) -> np.ndarray:
    """[H, W] bool: the pixels that a task redraws, from a marked region: True or 1 where marked, False or 0 elsewhere.

    Out-painting redraws all that is *not* marked; a variation needs no region and then redraws everything.

    Raises:
      InputError: for an unknown task, a mask of another size than the picture, of other values, or one that leaves
        nothing to do.
    """
    if task not in MASKED_TASKS:
        raise InputError(f"task '{task}': there is no such task with a mask; expected one of {', '.join(MASKED_TASKS)}")
    if mask_HxW is None:
        if task != "vary":
            raise InputError(f"task {task}: needs a mask or a box that marks the region")
        return np.ones(shape, bool)
    mask_HxW = checked_mask(mask_HxW, shape)
    if not mask_HxW.any():
        raise InputError("mask: is empty, mark the region of the task in white")
    if task == "outpaint" and mask_HxW.all():
        raise InputError("mask: marks all of the picture as kept, which leaves out-painting nothing to draw")
    return ~mask_HxW if task == "outpaint" else mask_HxW


def edit(
    redraw: Redraw,
    pyramid: Pyramid,
    size: int,
    image_HxWx3: np.ndarray,
    region_HxW: np.ndarray,
    keep_scales: int = 0,
    dilate: int = 0,
    edge: int | None = None,
) -> np.ndarray:
    """The picture, uint8 [H, W, 3], with its region redrawn; beyond the soft edge byte for byte the same.

    Args:
      redraw: the masked sampler; is called once with one picture.
      pyramid, size: of the model.
      image_HxWx3: uint8, of any size.
      region_HxW: bool, see `region_of`.
      keep_scales: so many of the first scales stay in the region too, whose pixels are then not blanked.
      dilate: tokens around the region that are redrawn with it.
      edge: width of the soft edge around the region in pixels; None: a 32nd of the window.

    Raises:
      InputError: for a number out of range.
    """
    _check_count("keep_scales", keep_scales, len(pyramid))
    _check_count("dilate", dilate, pyramid.final_side)
    _check_count("edge", 0 if edge is None else edge, max(image_HxWx3.shape))
    window = window_around(region_HxW, size)
    part, region = window.cut(image_HxWx3), window.cut(region_HxW)
    unknown = window.outside(*region_HxW.shape)
    seen, keep_mask_L = seen_and_keep_mask(part, region | unknown, pyramid, size, keep_scales, dilate)
    redrawn = to_uint8(np.asarray(redraw(seen[None], keep_mask_L[None]))[0])
    alpha = masks.soft_edge(region & ~unknown, max(1, window.side // _EDGES_PER_SIDE) if edge is None else edge)
    place = place_in_square(part.shape, size)
    pasted = masks.composite(part, resized(redrawn[place], part.shape), alpha)
    return window.put_back(image_HxWx3, pasted)


def seen_and_keep_mask(
    part_hxwx3: np.ndarray, region_hxw: np.ndarray, pyramid: Pyramid, size: int, keep_scales: int, dilate: int
) -> tuple[np.ndarray, np.ndarray]:
    """The picture that the model sees, uint8 [size, size, 3], and which of its tokens stay, [L] bool."""
    if not keep_scales:  # blanked before it is scaled: scaling, too, mixes pixels with their neighbours
        part_hxwx3 = masks.blank(part_hxwx3, region_hxw)
    place = place_in_square(part_hxwx3.shape, size)
    seen, unknown = np.zeros((size, size, 3), np.uint8), np.ones((size, size), bool)
    seen[place] = resized(part_hxwx3, seen[place].shape)
    unknown[place] = False
    if unknown.any():
        seen = masks.blank(seen, unknown)
    covered = Image.fromarray(region_hxw.astype(np.uint8) * 255)
    unknown[place] = np.asarray(covered.resize(unknown[place].shape[::-1], Image.Resampling.BOX)) > 0
    keep_mask_L = masks.keep_mask(unknown[None], pyramid, dilate)[0]
    return seen, keep_mask_L | masks.first_scales(pyramid, keep_scales)


def place_in_square(shape: tuple[int, ...], size: int) -> tuple[slice, slice]:
    """Rows and columns that a part [h, w, ...] takes, scaled, in the middle of a square of `size`: all if h = w."""
    sides = [max(1, round(size * side / max(shape[:2]))) for side in shape[:2]]
    rows, columns = (slice((size - side) // 2, (size - side) // 2 + side) for side in sides)
    return rows, columns


def resized(image_hxwx3: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """uint8 of that shape by Lanczos; the same bytes where it has that shape."""
    if image_hxwx3.shape == shape:
        return image_hxwx3
    return np.asarray(Image.fromarray(image_hxwx3).resize((shape[1], shape[0]), Image.Resampling.LANCZOS))


def extended(image_HxWx3: np.ndarray, left: int, top: int, right: int, bottom: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture with empty room at its sides, and the mask [H', W'] that is True on the picture itself.

    Raises:
      InputError: for a negative number, none above 0, or a result that is too large.
    """
    room = (left, top, right, bottom)
    if min(room) < 0 or max(room) == 0:
        raise InputError(f"room {room}: expected the pixels to add left, top, right, bottom: 0 or more, one above 0")
    check_size(image_HxWx3.shape[0] + top + bottom, image_HxWx3.shape[1] + left + right)
    rows, columns = (top, bottom), (left, right)
    canvas = np.pad(image_HxWx3, (rows, columns, (0, 0)), mode="edge")
    return canvas, np.pad(np.ones(image_HxWx3.shape[:2], bool), (rows, columns))


def box_mask(box: tuple[int, int, int, int], shape: tuple[int, int]) -> np.ndarray:
    """[H, W] bool: True from (x0, y0) up to, not including, (x1, y1).

    Raises:
      InputError: for a box that is empty or reaches out of the picture.
    """
    (x0, y0, x1, y1), (height, width) = box, shape
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise InputError(f"box {x0},{y0},{x1},{y1}: expected 0 <= x0 < x1 <= {width} and 0 <= y0 < y1 <= {height}")
    mask = np.zeros(shape, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def _check_count(name: str, value: Any, most: int) -> None:
    if not is_whole(value) or not 0 <= value <= most:
        raise InputError(f"{name} {str(value)[:60]}: expected a whole number, 0 to {most}")
