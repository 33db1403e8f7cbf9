"""What a user may turn when pictures are drawn: which numbers can be, and how they are spread over the scales."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from var_jax.errors import InputError
from var_jax.generation import sampler
from var_jax.generation.guidance import LINEAR, Schedule
from var_jax.pyramid import Pyramid

PerScale = Sequence[float] | float  # one number for all scales, or one each


def make_controls(
    pyramid: Pyramid,
    codebook_size: int,
    guidance: float,
    top_k: PerScale,
    top_p: PerScale,
    temperature: PerScale,
    schedule: Schedule | str = LINEAR,
) -> sampler.Controls:
    """The numbers as the sampler takes them.

    Raises:
      InputError: naming the first that cannot be.
    """
    check_settings(guidance, top_k, top_p, temperature, schedule, len(pyramid))
    # A top_k beyond the codebook keeps all, and may be beyond 32 bits as well.
    top_k = np.minimum(np.asarray(top_k), codebook_size)
    return sampler.controls(
        pyramid, guidance, top_k, np.asarray(top_p), np.asarray(temperature), Schedule.parse(schedule)
    )


def check_settings(
    guidance: float,
    top_k: PerScale,
    top_p: PerScale,
    temperature: PerScale,
    schedule: Schedule | str = LINEAR,
    scales: int | None = None,
) -> None:
    """Raises an InputError naming the first sampling setting that cannot be.

    Without `scales` any number of values a setting passes, as before the model is known.
    """
    _check("guidance", guidance, np.isfinite, "expected a finite number, 0 for none", 0)
    whole = lambda value: value >= 0 and value % 1 == 0
    _check("top_k", top_k, whole, "expected a whole number, 0 to keep all tokens", scales)
    _check("top_p", top_p, lambda value: 0.0 <= value <= 1.0, "expected 0 to 1, 0 to keep all tokens", scales)
    above_0 = lambda value: 0.0 < value < np.inf
    _check("temperature", temperature, above_0, "expected a number above 0 (top_k 1 is the greedy choice)", scales)
    Schedule.parse(schedule)


def _check(name: str, value: Any, holds: Any, expected: str, scales: int | None) -> None:
    """One value, or a list of one a scale; `scales` 0 takes no list, None one of any length."""
    array, several = np.asarray(value), "" if scales == 0 else ", or one for each scale"
    if array.dtype.kind not in "iuf" or array.ndim > 1 or (array.ndim and scales == 0):
        raise InputError(f"{name} {value!r}: expected a number{several}")
    if array.ndim and (not array.size or scales not in (None, array.size)):
        raise InputError(f"{name} {value!r}: expected a number{several}, which are {scales or 'one or more'}")
    for one in array.ravel():
        with np.errstate(over="ignore", invalid="ignore"):  # the program's float32: 1e-50 is 0 and 1e50 infinite
            if not holds(np.float32(one)) or (name == "top_k" and one % 1 != 0):
                raise InputError(f"{name} {one if array.ndim else value}: {expected}")
