"""Pickles of nested dicts of numpy arrays, read without running anything that they hold.

Such a file names three Python objects, numpy's `_reconstruct`, `ndarray` and `dtype`. None is imported: a few lines
stand for them here. PyTorch's files are another matter, see `torch_pickle.py`.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import numpy as np

from var_jax.errors import InputError
from var_jax.formats.mapped import map_file
from var_jax.formats.safe_pickle import Problem, SafeUnpickler, Steps, python_steps, require

_KINDS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")


def read_numpy_pickle(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Nested dicts, by text, of read-only arrays.

    Raises:
      InputError: if the file is missing, damaged, or holds anything but dicts of arrays of numbers.
    """
    unpickler = _ArrayUnpickler(bytes(map_file(path)))
    try:
        tree = unpickler.unpickle()
        if type(tree) is not dict:
            unpickler.refuse(_OTHER)
    except Problem as problem:
        raise InputError(f"{path}: {problem}") from None
    return tree


_OTHER = "it holds something other than dicts, by text, of numpy arrays"


@dataclasses.dataclass
class _Part:
    """An array or an element type: a pickle makes it empty or native, and completes it by the next instruction."""

    value: np.ndarray | np.dtype | None


def _array(kind: Any, *_: Any) -> _Part:
    require(kind == "ndarray")
    return _Part(None)


def _dtype(kind: Any, *_: Any) -> _Part:
    require(kind in _KINDS)
    return _Part(np.dtype(kind))


class _ArrayUnpickler(SafeUnpickler):
    # `_reconstruct` as it is called before and since numpy 2.
    names = {f"numpy.{core}.multiarray._reconstruct": _array for core in ("core", "_core")}
    names |= {"numpy.ndarray": "ndarray", "numpy.dtype": _dtype}
    dispatch = Steps(SafeUnpickler.dispatch | python_steps("BINBYTES SHORT_BINBYTES BINBYTES8"))

    def build(self, state: Any) -> None:
        part = self.stack[-1]
        require(type(part) is _Part)
        if part.value is None:
            _, shape, dtype, fortran, data = state
            require(type(dtype) is _Part and type(data) is bytes)
            part.value = np.frombuffer(data, dtype.value).reshape(shape, order="F" if fortran else "C")
        else:
            require(isinstance(part.value, np.dtype) and state[1] in ("<", ">", "|"))
            part.value = part.value.newbyteorder(state[1])

    def set_items(self, items: list[Any]) -> None:
        items[1::2] = values = [value.value if type(value) is _Part else value for value in items[1::2]]
        if {type(key) for key in items[::2]} - {str} or {type(value) for value in values} - {dict, np.ndarray}:
            self.refuse(_OTHER)
        super().set_items(items)
