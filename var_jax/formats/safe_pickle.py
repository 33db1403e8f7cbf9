"""Python's unpickler cut down until a file can run nothing with it, and can exhaust neither memory nor time.

A pickle is a program for a stack machine that may import and call anything. `pickle.Unpickler` with a `find_class`
of its own calls nothing else, but cannot be bounded: seven bytes make it fill 2 GB (the index of a memo), and a
tuple of tuples as the key of a dict crashes it or keeps it busy for ever. The version of it in Python takes its steps
from a table, which is narrowed here to those that build plain containers; the others get budgets.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NoReturn

_MOST_STEPS = 2**22  # an instruction takes up to three, a tensor with its two moments of Adam some 220
_HASH_PRIME = sys.hash_info.modulus
_STEPS = """
    PROTO STOP MARK NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8
    EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST APPEND APPENDS EMPTY_DICT
    PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET GLOBAL STACK_GLOBAL INST BINPERSID
"""
# Raised by the steps, our functions and numpy where an instruction does not fit its input.
_FAILURES = (
    *(ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, EOFError, MemoryError),
    *(struct.error, pickle.UnpicklingError),
)


class Problem(Exception):
    """Why a file cannot be read; whoever knows the file's name makes an InputError of it."""


class Steps(dict):
    """Steps of the unpickler by the code of their instruction; any other instruction is refused by name."""

    def __missing__(self, code: int) -> Callable[[SafeUnpickler], NoReturn]:
        name = pickletools.code2op[chr(code)].name
        return lambda unpickler: unpickler.refuse(f"its pickle holds the instruction {name}, which no tensors need")


def python_steps(names: str) -> Steps:
    """The named steps as Python takes them."""
    codes = [getattr(pickle, name)[0] for name in names.split()]
    return Steps((code, pickle._Unpickler.dispatch[code]) for code in codes)


class SafeUnpickler(pickle._Unpickler):
    """Reads one pickle of plain containers and of the objects that `names` gives for names.

    Nothing is imported, and the functions in `names` are all that a pickle can call. Such a function may neither take
    longer nor make more than its arguments have items.
    """

    names: ClassVar[Mapping[str, Any]] = {}
    remedy: ClassVar[str] = "copy or download the file again"

    def __init__(self, content: bytes):
        self.content = _Content(content)
        super().__init__(self.content, encoding="latin-1")
        self.memo = _Memo()

    def unpickle(self) -> Any:
        """Reads the pickle; a Problem if it is damaged, too large, or holds an instruction or name not allowed."""
        try:
            return self.load()
        except _FAILURES:
            raise Problem("the pickle inside is damaged or cut short; copy or download the file again") from None

    def refuse(self, reason: str) -> NoReturn:
        raise Problem(f"{reason}; {self.remedy}")

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full not in self.names:
            shown = ascii(full)[1:-1][:200]
            self.refuse(f"it asks for the Python object {shown}, refused because it could run code")
        return self.names[full]

    def set_items(self, items: list[Any]) -> None:
        """Adds [key, value, key, value ...] to the dict on the stack."""
        fill_dict(self.stack[-1], items)

    def build(self, state: Any) -> None:
        """An OrderedDict carries attributes (`_metadata`: module versions), which no array depends on."""
        require(type(self.stack[-1]) is dict)

    def make_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self.set_items(items)

    def call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        require(type(function) is types.FunctionType and type(arguments) is tuple)
        sizes = [len(argument) for argument in arguments if type(argument) in (str, list, tuple, dict)]
        self.content.spend(len(arguments) + sum(sizes))
        self.append(function(*arguments))

    dispatch = python_steps(_STEPS)
    dispatch[pickle.FRAME[0]] = lambda self: self.read(8)  # the frame's size, which only helps to read ahead
    dispatch[pickle.SETITEM[0]] = lambda self: self.set_items([self.stack.pop(-2), self.stack.pop()])
    dispatch[pickle.SETITEMS[0]] = lambda self: self.set_items(self.pop_mark())
    dispatch[pickle.DICT[0]] = make_dict
    dispatch[pickle.BUILD[0]] = lambda self: self.build(self.stack.pop())
    dispatch[pickle.REDUCE[0]] = call


def require(fits: bool) -> None:
    """Raises an error, which `unpickle` reports as damage, unless it fits."""
    if not fits:
        raise ValueError


def fill_dict(target: Any, items: list[Any]) -> None:
    """Adds [key, value, key, value ...] to a dict.

    The keys are text and numbers: to hash a tuple may crash or never end, and large integers can share one hash.
    """
    require(type(target) is dict and all(map(_is_key, items[::2])))
    target.update(zip(items[::2], items[1::2], strict=True))


def _is_key(key: Any) -> bool:
    return key is None or type(key) in (str, float, bool) or (type(key) is int and abs(key) < _HASH_PRIME)


class _Memo(dict):
    """Objects that the pickle comes back to, by an index which, if larger, could share its hash with the others."""

    def __setitem__(self, index: int, value: Any) -> None:
        require(index < 2**32)
        super().__setitem__(index, value)


class _Content(io.BytesIO):
    """The bytes of a pickle; to read beyond their end, or without an end, is an error."""

    steps = 0

    def spend(self, steps: int) -> None:
        self.steps += steps
        if self.steps > _MOST_STEPS:
            raise Problem(f"its pickle takes more than {_MOST_STEPS} steps to read; save the weights of one model only")

    def read(self, size: int | None = -1) -> bytes:
        self.steps += 1
        if self.steps > _MOST_STEPS:
            self.spend(0)
        data = super().read(size)
        if len(data) != size:
            raise EOFError
        return data

    def readline(self, size: int | None = -1) -> bytes:
        line = super().readline(size)
        if not line.endswith(b"\n"):
            raise EOFError
        return line
