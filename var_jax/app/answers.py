"""The answers to the requests of the page: from checked JSON to pictures, without a server or a file.

Every request is bounded here: how many pictures, how large, how many windows of the model an enlargement takes.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import io
from typing import Any

import numpy as np
from PIL import Image

from var_jax.bundle import Bundle
from var_jax.data.images import decode_image
from var_jax.errors import InputError
from var_jax.generation.batching import LARGEST_SEED, batches, class_keys
from var_jax.generation.editing import TASKS, extended
from var_jax.generation.guidance import KINDS
from var_jax.generation.pictures import to_uint8
from var_jax.generation.settings import DEFAULTS
from var_jax.generation.upscaling import windows
from var_jax.models.reproducible import new_key

MOST_PICTURES = 4  # of a request, drawn together; the page asks again for more
MOST_PIXELS = 2048 * 2048  # of a picture that is sent, and of the result
MOST_BYTES = 12 * 2**20  # of a request
MOST_WINDOWS = 64  # of the model, when a picture is enlarged
_WHITE = 128  # and above: marked
_LARGEST_INDEX = 2**16

Request = dict[str, Any]


def described(bundle: Bundle) -> dict[str, Any]:
    """The properties of a model that the page needs, and the defaults of its fields."""
    config = bundle.transformer.config
    names = bundle.class_names or tuple(f"class {label}" for label in range(config.num_classes))
    return {
        "classes": list(names),
        "size": bundle.tokenizer.config.image_size,
        "sides": list(config.pyramid.sides),
        "codes": config.codebook_size,
        "tasks": list(TASKS),
        "schedules": list(KINDS),
        "defaults": dataclasses.asdict(DEFAULTS),
        "most_pictures": MOST_PICTURES,
        "most_upload": MOST_BYTES * 3 // 4 - 2**20,  # in base64, with room for a mask
        "largest_seed": LARGEST_SEED,
    }


def sample(bundle: Bundle, request: Request) -> dict[str, Any]:
    """Pictures of chosen classes as they grow: `frames` of each are PNG files in base64, one per scale.

    Args:
      request: `pictures`, a list of [class id or null, index within the class], and the settings. A picture is the
        one that `var-jax sample` draws for the same seed, class and index.

    Raises:
      InputError: naming the field that cannot be.
    """
    wanted, settings = _wanted(bundle, request), _settings(request)
    labels, indices = (list(column) for column in zip(*wanted, strict=True))
    keys, pictures = class_keys(_whole(request, "seed", 0, LARGEST_SEED), labels, indices), []
    # One picture or a full batch: two programs serve every request.
    for rows, new in batches(len(wanted), 1 if len(wanted) == 1 else MOST_PICTURES, fill=True):
        growth_SxBxHxWx3 = to_uint8(np.asarray(bundle.grow(np.asarray(labels)[rows], keys[rows], **settings)))
        pictures += [{"frames": [_png(frame) for frame in growth_SxBxHxWx3[:, row]]} for row in range(new)]
    return {"pictures": pictures}


def edit(bundle: Bundle, request: Request) -> dict[str, Any]:
    """A picture edited: `image` is a PNG file in base64.

    Args:
      request: `image` and `mask` (or null), picture files in base64; `task`; `class`, an id or null; `extend`, pixels
        to add left, top, right, bottom (or null); `keep_scales`, `dilate`, `factor` as for `Bundle.edit`; the settings.

    Raises:
      InputError: naming the field that cannot be.
    """
    task, extend = request.get("task"), request.get("extend")
    if task not in TASKS:
        raise InputError(f"task {task!r}: expected one of {', '.join(TASKS)}")
    image = _picture(request, "image")
    mask = None if request.get("mask") is None else np.asarray(_picture(request, "mask").convert("L")) >= _WHITE
    image = np.asarray(image)
    if extend is not None:
        image, mask = _extended(image, mask, task, extend)
    factor = _whole(request, "factor", 2, 8, default=2)
    if task == "upscale":
        _check_result(image.shape[0] * factor, image.shape[1] * factor, bundle.tokenizer.config.image_size)
        mask = None
    optional = lambda name, high: None if request.get(name) is None else _whole(request, name, 0, high)
    edited = bundle.edit(
        image,
        task,
        new_key(np.uint32(_whole(request, "seed", 0, LARGEST_SEED))),
        mask=mask,
        label=optional("class", bundle.transformer.config.num_classes - 1),
        keep_scales=optional("keep_scales", len(bundle.tokenizer.config.pyramid)),
        dilate=_whole(request, "dilate", 0, 8, default=0),
        factor=factor,
        **_settings(request),
    )
    return {"image": _png(edited)}


def _wanted(bundle: Bundle, request: Request) -> list[tuple[int, int]]:
    """(class id, index) of each picture; no class is `num_classes`."""
    pairs = request.get("pictures")
    if not isinstance(pairs, list) or not 1 <= len(pairs) <= MOST_PICTURES:
        raise InputError(f"pictures: expected a list of 1 to {MOST_PICTURES} pairs of class and index")
    total, wanted = bundle.transformer.config.num_classes, []
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2:
            raise InputError("pictures: expected pairs of class and index")
        one = {"class": total if pair[0] is None else pair[0], "index": pair[1]}
        wanted.append((_whole(one, "class", 0, total), _whole(one, "index", 0, _LARGEST_INDEX)))
    return wanted


def _settings(request: Request) -> dict[str, Any]:
    """The sampling options in the request; `Bundle.generate` checks the numbers itself."""
    if not isinstance(request.get("smooth", False), bool):
        raise InputError(f"smooth {request['smooth']!r}: expected true or false")
    if not isinstance(request.get("schedule", ""), str):
        raise InputError(f"schedule {request['schedule']!r}: expected text like linear or power:2")
    return {field.name: request[field.name] for field in dataclasses.fields(DEFAULTS) if field.name in request}


def _extended(image: np.ndarray, mask: np.ndarray | None, task: str, extend: Any) -> tuple[np.ndarray, np.ndarray]:
    if task != "outpaint" or mask is not None:
        raise InputError("extend: belongs to the task outpaint, without a mask")
    if not isinstance(extend, list) or len(extend) != 4:
        raise InputError("extend: expected the pixels to add left, top, right and bottom")
    sides = dict(zip(("left", "top", "right", "bottom"), extend, strict=True))
    left, top, right, bottom = (_whole(sides, name, 0, MOST_PIXELS) for name in sides)
    _check_result(image.shape[0] + top + bottom, image.shape[1] + left + right)
    return extended(image, left, top, right, bottom)


def _check_result(height: int, width: int, size: int | None = None) -> None:
    """Refuses a result that is too large, before anything of that size is made."""
    if height * width > MOST_PIXELS:
        raise InputError(
            f"a result of {width} x {height} pixels: this page makes {MOST_PIXELS} at most; use var-jax edit"
        )
    if size is not None and (count := sum(1 for _ in windows(height, width, size))) > MOST_WINDOWS:
        raise InputError(
            f"upscale: {width} x {height} pixels are {count} windows of the model, {MOST_WINDOWS} at most here; "
            "send a smaller picture, or use var-jax edit"
        )


def _picture(request: Request, name: str) -> Image.Image:
    """A picture that was sent, RGB."""
    text = request.get(name)
    if not isinstance(text, str):
        raise InputError(f"{name}: expected a picture file in base64")
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InputError(f"{name}: is not base64") from None
    return decode_image(content, name, MOST_PIXELS)


def _png(image_HxWx3: np.ndarray) -> str:
    content = io.BytesIO()
    Image.fromarray(image_HxWx3).save(content, format="PNG")
    return base64.b64encode(content.getvalue()).decode()


def _whole(request: Request, name: str, low: int, high: int, default: int | None = None) -> int:
    """A whole number of the request, within its bounds."""
    value = request.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InputError(f"{name} {value!r}: expected a whole number from {low} to {high}")
    return value
