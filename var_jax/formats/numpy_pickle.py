"""Pickles of nested dicts of numpy arrays, read without executing anything.

Such a file names three Python objects (numpy's `_reconstruct`, `ndarray` and `dtype`). None is imported: the
machine here knows the few instructions and the three names that a dict of arrays is written with, and
refuses everything else. PyTorch's files are another matter, see `torch_pickle.py`.
"""

from __future__ import annotations

import os
import pickletools
from typing import Any

import numpy as np

from var_jax.errors import InputError
from var_jax.formats.mapped import map_file

_AGAIN = "copy or download it again"
_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")  # before and since numpy 2
_RECONSTRUCT, _NDARRAY, _DTYPE = object(), object(), object()
_NAMES = {(module, "_reconstruct"): _RECONSTRUCT for module in _MODULES}
_NAMES |= {("numpy", "ndarray"): _NDARRAY, ("numpy", "dtype"): _DTYPE}
_KINDS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")
_VALUES = (
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_PUTS, _GETS = ("BINPUT", "LONG_BINPUT", "MEMOIZE"), ("BINGET", "LONG_BINGET")
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Empty:
    """An array, or its type, between the instruction that makes it and the one that fills it."""

    def __init__(self, kind: str | None = None) -> None:
        self.kind = kind  # of a type: "f4"; None for an array


class _Type:
    def __init__(self, dtype: np.dtype) -> None:
        self.dtype = dtype


def read_numpy_pickle(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Nested dicts, by text, of read-only arrays.

    Raises:
      InputError: if the file is missing, damaged, or holds anything but dicts of arrays of numbers.
    """
    content = bytes(map_file(path))
    try:
        tree = _run(content)
        _check(tree, 0)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError):
        # What the parser, the machine and numpy raise on an instruction that does not fit its input.
        raise InputError(f"{path}: is no whole pickle of a dict of numpy arrays; {_AGAIN}") from None
    return tree


def _run(content: bytes) -> Any:
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def popped() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    for opcode, argument, _ in pickletools.genops(content):
        name = opcode.name
        if name == "STOP":
            return stack.pop()
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "MARK":
            marks.append(len(stack))
        elif name in _PUTS:
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif name in _GETS:
            stack.append(memo[argument])
        elif name in _TUPLES:
            stack[-_TUPLES[name] :] = [tuple(stack[-_TUPLES[name] :])]
        elif name == "TUPLE":
            stack.append(tuple(popped()))
        elif name in ("SETITEM", "SETITEMS"):
            items = popped() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
            _set(stack[-1], items)
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            module, named = argument.split(" ", 1) if name == "GLOBAL" else (stack.pop(-2), stack.pop())
            stack.append(_named(module, named))
        elif name == "REDUCE":
            arguments = stack.pop()
            stack.append(_made(stack.pop(), arguments))
        elif name == "BUILD":
            state = stack.pop()
            filled = _filled(stack[-1], state)
            # What remembers the empty one is to remember the filled one: a type is named once and used often.
            memo = {key: filled if value is stack[-1] else value for key, value in memo.items()}
            stack[-1] = filled
        elif name not in ("PROTO", "FRAME"):
            raise InputError(f"holds the instruction {name}, which no dict of arrays needs; {_AGAIN}")
    raise ValueError("no end")


def _named(module: Any, name: Any) -> object:
    if (module, name) not in _NAMES:
        shown = ascii(f"{module}.{name}")[1:-1][:200]
        raise InputError(f"asks for the Python object {shown}, refused because it could run code; {_AGAIN}")
    return _NAMES[module, name]


def _set(target: Any, items: list[Any]) -> None:
    if type(target) is not dict or not all(type(key) is str for key in items[::2]):
        raise TypeError("not a dict by text")
    target.update(zip(items[::2], items[1::2], strict=True))


def _made(function: Any, arguments: tuple) -> _Empty:
    if function is _RECONSTRUCT and arguments[0] is _NDARRAY:
        return _Empty()
    if function is _DTYPE and arguments[0] in _KINDS:
        return _Empty(arguments[0])
    raise TypeError("not an array")


def _filled(empty: Any, state: tuple) -> Any:
    if type(empty) is not _Empty:
        raise TypeError("not an array")
    if empty.kind is not None:
        if state[1] not in ("<", ">", "|"):
            raise ValueError("not a byte order")
        return _Type(np.dtype(empty.kind).newbyteorder(state[1]))
    _, shape, kind, fortran, data = state
    if type(kind) is not _Type or type(data) is not bytes:
        raise TypeError("not an array")
    return np.frombuffer(data, kind.dtype).reshape(shape, order="F" if fortran else "C")


def _check(tree: Any, level: int) -> None:
    if type(tree) is not dict or level > 32:
        raise TypeError("not a dict of arrays")
    for value in tree.values():
        if not isinstance(value, np.ndarray):
            _check(value, level + 1)
