"""Taking tensors out of a network's published file."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np

from var_jax.errors import InputError


def take_tensor(
    path: str | os.PathLike[str],
    tensors: Mapping[str, np.ndarray],
    name: str,
    shape: tuple[int, ...],
    network: str,
    remedy: str,
) -> np.ndarray:
    """A tensor of the file at `path`.

    Raises:
      InputError: if the network's tensor is missing or has another shape, ending with the remedy.
    """
    if name not in tensors:
        raise InputError(f"{path}: lacks {name} of {network}; {remedy}")
    if tensors[name].shape != shape:
        raise InputError(f"{path}: {name} has the shape {tensors[name].shape}, expected {shape}; {remedy}")
    return tensors[name]
