"""Taking tensors out of a network's published file."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np

from var_jax.errors import InputError
from var_jax.formats.tensors import read_state_dict


def published_tensors(
    path: str | os.PathLike[str], weights: str, network: str, remedy: str
) -> Callable[[str, tuple[int, ...]], np.ndarray]:
    """Reads a file of weights; returns a function from a tensor's name and expected shape to the tensor.

    Raises:
      InputError: if there is no such file; from the function, if the tensor is missing or has another shape. Each
        names the weights or the network, and ends with the remedy.
    """
    if not os.fspath(path) or not os.path.exists(path):
        raise InputError(f"weights of {weights}: no file '{path}'; {remedy}")
    tensors = read_state_dict(path)

    def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name not in tensors:
            raise InputError(f"{path}: lacks {name} of {network}; {remedy}")
        if tensors[name].shape != shape:
            raise InputError(f"{path}: {name} has the shape {tensors[name].shape}, expected {shape}; {remedy}")
        return tensors[name]

    return tensor
