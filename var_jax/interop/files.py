"""Reads a checkpoint file of any supported format as tensors by their dotted names."""

from __future__ import annotations

import os

import numpy as np

from var_jax.errors import InputError
from var_jax.formats.tensors import flatten_state_dict, read_tensors


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads the file's tensors; nested tensors are named by their path ("trainer.vae_local...").

    Raises:
      InputError: naming the file, if it is missing, damaged or refused, or two tensors have one name.
    """
    tree = read_tensors(path)
    try:
        return flatten_state_dict(tree)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
