"""Reads and writes safetensors files by the `safetensors` library, with its reports of damage in our words."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from var_jax.errors import InputError
from var_jax.formats.atomic import atomic_file
from var_jax.formats.mapped import map_file

# Types that the library both writes from numpy and reads back into it.
_INTEGERS = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_DTYPES = frozenset(map(np.dtype, (*_INTEGERS, "float16", "float32", "float64", "complex64", ml_dtypes.bfloat16)))
_RESERVED = "__metadata__"  # where the header keeps the metadata, among the names of the tensors


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The file's tensors, by name.

    Raises:
      InputError: if the file is missing, damaged, not safetensors, or has a type numpy cannot hold.
    """
    with _opened(path) as file:
        return file.get_tensors()


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The texts written beside the tensors; reads no tensor.

    Raises:
      InputError: if the file is missing, damaged or not safetensors.
    """
    with _opened(path) as file:
        return dict(file.metadata() or {})


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[safetensors.safe_open]:
    map_file(path)  # reports a wrong path in words, where the library has a number
    try:
        with safetensors.safe_open(os.fspath(path), framework="np") as file:
            yield file
    except safetensors.SafetensorError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: not a whole safetensors file ({reason}); copy or download it again") from None
    except AttributeError as error:  # the library looks up the type in numpy by name
        raise InputError(f"{path}: holds a tensor type that numpy lacks ({error}); convert it to bfloat16") from None


def write_safetensors(
    path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Writes tensors and metadata; an existing file is replaced once the new one is whole.

    Raises:
      InputError: for a type or name the format cannot hold, or if the disk or the permissions forbid it.
    """
    checked = {}
    for name, value in tensors.items():
        array = np.asarray(value)
        dtype = array.dtype.newbyteorder("=")
        if not isinstance(name, str) or name == _RESERVED or dtype not in _DTYPES:
            raise InputError(
                f"{path}: tensor {name!r} of type {array.dtype} cannot be written to safetensors; expected text other"
                f" than {_RESERVED} as name, and numbers or booleans of at most 64 bits"
            )
        # The library writes the memory as it lies, whatever the strides say.
        checked[name] = np.asarray(array, dtype, order="C")
    with atomic_file(path) as temporary:
        try:
            # Metadata that are empty but not None make version 0.8 write a header it cannot read.
            safetensors.numpy.save_file(checked, temporary, dict(metadata) or None)
        except safetensors.SafetensorError as error:  # the library's own report of a full or forbidden disk
            reason = " ".join(str(error).replace(str(temporary), str(path)).split())
            raise InputError(f"{path}: cannot be written ({reason}); choose a place with room") from None
