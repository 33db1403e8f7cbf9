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
        tree = _Machine().run(content)
        _check(tree, 0)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError):
        # What the parser, the machine and numpy raise on an instruction that does not fit its input.
        raise InputError(f"{path}: is no whole pickle of a dict of numpy arrays; {_AGAIN}") from None
    return tree


class _Machine:
    """The stack, the marks on it and the memo of one pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, content: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name == "STOP":
                return self.stack.pop()
            if opcode.name in _VALUES:
                self.stack.append(argument)
            elif opcode.name in _CONSTANTS:
                self.stack.append(_CONSTANTS[opcode.name])
            elif opcode.name == "EMPTY_DICT":
                self.stack.append({})
            elif opcode.name == "MARK":
                self.marks.append(len(self.stack))
            elif opcode.name in _PUTS:
                self.memo[len(self.memo) if argument is None else argument] = self.stack[-1]
            elif opcode.name in _GETS:
                self.stack.append(self.memo[argument])
            elif opcode.name not in ("PROTO", "FRAME"):
                self.combine(opcode.name, argument)
        raise ValueError("no end")

    def combine(self, name: str, argument: Any) -> None:
        """Instructions that make one thing of what lies on the stack."""
        stack = self.stack
        if name in _TUPLES:
            stack[-_TUPLES[name] :] = [tuple(stack[-_TUPLES[name] :])]
        elif name == "TUPLE":
            stack.append(tuple(self.popped()))
        elif name in ("SETITEM", "SETITEMS"):
            items = self.popped() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
            _set(stack[-1], items)
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            module, named = argument.split(" ", 1) if name == "GLOBAL" else (stack.pop(-2), stack.pop())
            stack.append(_named(module, named))
        elif name == "REDUCE":
            arguments = stack.pop()
            stack.append(_made(stack.pop(), arguments))
        elif name == "BUILD":
            state, empty = stack.pop(), stack.pop()
            stack.append(_filled(empty, state))
            # What remembers the empty one is to remember the filled one: a type is named once and used often.
            self.memo = {key: stack[-1] if value is empty else value for key, value in self.memo.items()}
        else:
            raise InputError(f"holds the instruction {name}, which no dict of arrays needs; {_AGAIN}")

    def popped(self) -> list[Any]:
        """What lies above the last mark."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items


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
