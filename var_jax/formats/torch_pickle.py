"""The pickle inside a PyTorch file: a reader that can execute nothing, and a writer of plain state dicts.

A pickle is a program for a stack machine, and Python's own machine may import and call anything. The
one here knows the instructions that build plain containers, and a fixed list of names (`_CALLS`,
`STORAGE_DTYPES`, `DTYPES`) that stand for tensors and harmless values. None of them is imported: each
is replaced by a few lines below, and every other name is refused before anything else happens.
"""

from __future__ import annotations

import dataclasses
import math
import pickle
import pickletools
import struct
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

# Class of a storage in module `torch` -> type of its elements.
STORAGE_DTYPES: dict[str, np.dtype] = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
    "ComplexFloatStorage": np.dtype(np.complex64),
    "ComplexDoubleStorage": np.dtype(np.complex128),
}
# Types by their name in module `torch`; those without a storage class lie in untyped storages.
DTYPES: dict[str, np.dtype] = {dtype.name: dtype for dtype in STORAGE_DTYPES.values()} | {
    name: np.dtype(name) for name in ("uint16", "uint32", "uint64")
}
DTYPES |= {name: np.dtype(getattr(ml_dtypes, name)) for name in ("float8_e4m3fn", "float8_e5m2")}

UNTYPED = np.dtype("V1")  # bytes of a storage that does not know the type of its elements

# A tensor may show one element many times (`expand`); beyond this many elements we call it damage.
_MOST_REPEATED = 2**28
_MOST_DIMENSIONS = 32


class Problem(Exception):
    """Why a file cannot be read; whoever knows the file's name makes an InputError of it."""


@dataclasses.dataclass(frozen=True)
class StorageRef:
    """What the pickle says of a storage: its key, element type and count, and for an old view its start in the root."""

    key: str
    dtype: np.dtype
    elements: int
    view: tuple[int, int] | None = None  # (first element, elements) within the storage `key`

    @property
    def nbytes(self) -> int:
        """Bytes of the whole storage."""
        return self.elements * self.dtype.itemsize

    @property
    def visible_nbytes(self) -> int:
        """Bytes of what its tensors may see: the storage, or the view."""
        return self.nbytes if self.view is None else self.view[1] * self.dtype.itemsize


@dataclasses.dataclass(frozen=True)
class _Storage:
    ref: StorageRef
    data: np.ndarray | None  # uint8, or None while only the references are collected


@dataclasses.dataclass(frozen=True)
class _StorageType:
    name: str
    dtype: np.dtype


@dataclasses.dataclass(frozen=True)
class _Call:
    name: str
    function: Callable[..., Any]


# Returns the bytes of a storage as uint8, or None to leave its tensors empty.
LoadStorage = Callable[[StorageRef], np.ndarray | None]


def read_pickle(stream: BinaryIO, load_storage: LoadStorage | None = None) -> Any:
    """Reads one pickle from the stream's position and stops right behind it.

    Args:
      stream: anything with read, readline and tell.
      load_storage: gives the bytes of a storage; without it a pickle that holds tensors is a Problem.

    Returns:
      Plain containers with read-only numpy arrays in the place of tensors and parameters; sizes are
      tuples, devices and types are text like "cuda:0" and "torch.float16".

    Raises:
      Problem: for damage, and for every name that is not on the list.
    """
    machine = _Machine(load_storage)
    try:
        return machine.run(stream)
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, struct.error, MemoryError):
        # What the standard parser and the machine raise on an instruction that does not fit its input.
        raise Problem("the pickle inside is damaged or cut short; copy or download the file again") from None


class _Machine:
    """The stack, the marks on it and the memo of one pickle."""

    def __init__(self, load_storage: LoadStorage | None):
        self.load_storage = load_storage
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, stream: BinaryIO) -> Any:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name == "STOP":
                break
            if opcode.name in _NUMBERS or opcode.name in _TEXTS:
                self.stack.append(argument)
            elif opcode.name in _PUSH_NEW:
                self.stack.append(_PUSH_NEW[opcode.name]())
            elif opcode.name in _STEPS:
                _STEPS[opcode.name](self, argument)
            elif opcode.name not in _IGNORED:
                raise Problem(f"its pickle holds the instruction {opcode.name}, which no state dict needs; {_REMEDY}")
        result = self.stack.pop()
        _check_plain(result)
        return result

    def mark(self, _: None) -> None:
        self.marks.append(len(self.stack))

    def pop_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def put(self, index: int | None) -> None:
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]

    def get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    def append(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise TypeError("not a list")
        self.stack[-1].extend(items)

    def set_items(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not dict:
            raise TypeError("not a dict")
        self.stack[-1].update(_pairs(items))

    def tuple_of(self, count: int) -> None:
        items = tuple(self.stack[-count:])
        if len(items) != count:
            raise IndexError("stack too short")
        self.stack[-count:] = [items]

    def pop_pair(self) -> list[Any]:
        value, key = self.stack.pop(), self.stack.pop()
        return [key, value]

    def find(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise TypeError("not a name")
        self.stack.append(_find(module, name))

    def instance(self, names: str) -> None:
        raise _refused(names.replace(" ", ".", 1))  # no tensor was ever written as an instance of an old-style class

    def reduce(self, _: None) -> None:
        call, arguments = self.pop_pair()
        if type(call) is not _Call or type(arguments) is not tuple:
            raise TypeError("not a call")
        self.stack.append(call.function(*arguments))

    def build(self, _: None) -> None:
        # An OrderedDict carries attributes here (`_metadata`: module versions), which no array depends on.
        self.stack.pop()
        if type(self.stack[-1]) is not dict:
            raise TypeError("only dicts may carry attributes")

    def persistent(self, _: None) -> None:
        identity = self.stack.pop()
        if type(identity) is not tuple or len(identity) not in (5, 6) or identity[0] != "storage":
            raise TypeError("not a storage")
        _, kind, key, _, elements, *view = identity
        if type(kind) is not _StorageType or type(key) is not str or len(key) > 99 or self.load_storage is None:
            raise TypeError("not a storage")
        first = None
        if view and view[0] is not None:
            _, first, size = view[0]
            _check_counts(first, size)
        _check_counts(elements)
        ref = StorageRef(key, kind.dtype, elements, None if first is None else (first, size))
        self.stack.append(_Storage(ref, self.load_storage(ref)))


_REMEDY = "re-save its state dict alone, as a plain dict of tensors"
_NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
_TEXTS = ("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")
_PUSH_NEW: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
}
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.put,
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "APPEND": lambda machine, _: machine.append([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.pop_mark()),
    "SETITEM": lambda machine, _: machine.set_items(machine.pop_pair()),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_mark()),
    "LIST": lambda machine, _: machine.stack.append(machine.pop_mark()),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_mark())),
    "DICT": lambda machine, _: machine.stack.append(_pairs(machine.pop_mark())),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "GLOBAL": lambda machine, names: machine.find(*names.split(" ", 1)),
    "INST": _Machine.instance,
    "STACK_GLOBAL": lambda machine, _: machine.find(*machine.pop_pair()),
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent,
}
_IGNORED = frozenset(("PROTO", "FRAME"))


def _pairs(items: list[Any]) -> dict:
    """[key, value, key, value ...] as a dict."""
    keys = items[::2]
    # Only these keys: a tuple nested very deep overflows the C stack as soon as it is hashed.
    if not all(key is None or type(key) in (str, int, float, bool) for key in keys):
        raise TypeError("dict keys must be text or numbers")
    return dict(zip(keys, items[1::2], strict=True))


def _check_counts(*numbers: Any) -> None:
    if not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
        raise ValueError("sizes must be integers that fit a file")


def _check_plain(tree: Any) -> None:
    """A class or a storage may be named on the way to a tensor, but must not be left over in the result."""
    pending, seen = [tree], set()
    while pending:
        value = pending.pop()
        if id(value) in seen:
            continue
        if type(value) in (_StorageType, _Call, _Storage):
            name = value.ref.key if type(value) is _Storage else value.name
            raise Problem(f"it holds the bare object {name} beside its tensors; {_REMEDY}")
        if type(value) in (dict, list, tuple):
            seen.add(id(value))
            pending.extend(value.values() if type(value) is dict else value)


def _find(module: str, name: str) -> Any:
    full = f"{module}.{name}"
    if full in _CALLS:
        return _Call(full, _CALLS[full])
    if full == "torch.storage.UntypedStorage":
        return _StorageType(full, UNTYPED)
    if module == "torch" and name in STORAGE_DTYPES:
        return _StorageType(full, STORAGE_DTYPES[name])
    if module == "torch" and name in DTYPES:
        return full
    raise _refused(full)


def _refused(name: str) -> Problem:
    shown = ascii(name)[1:-1][:200]
    return Problem(f"it asks for the Python object {shown}, refused because it could run code; {_REMEDY}")


def _ordered_dict(pairs: Iterable = ()) -> dict:
    return _pairs([item for key, value in pairs for item in (key, value)])  # Python 2 wrote the pairs as argument


def _tensor(storage: Any, offset: int, shape: tuple, strides: tuple, *rest: Any) -> np.ndarray:
    # `rest` is empty in the oldest files, later (requires_grad, hooks) and perhaps a dict of lazy operations.
    if type(storage) is not _Storage or len(rest) > 3:
        raise TypeError("not a tensor")
    return _view(storage, storage.ref.dtype, offset, shape, strides, *rest[2:])


def _tensor_of_type(storage: Any, offset: int, shape: tuple, strides: tuple, *rest: Any) -> np.ndarray:
    _, _, dtype, *lazy = rest
    if type(storage) is not _Storage or type(dtype) is not str or len(lazy) > 1:
        raise TypeError("not a tensor")
    return _view(storage, DTYPES[dtype.removeprefix("torch.")], offset, shape, strides, *lazy)


def _parameter(data: Any, _gradient: Any = None, _hooks: Any = None, _state: Any = None) -> np.ndarray:
    if not isinstance(data, np.ndarray):
        raise TypeError("a parameter must hold a tensor")
    return data


def _device(kind: Any, index: Any = None) -> str:
    if type(kind) is not str or type(index) not in (int, type(None)):
        raise TypeError("not a device")
    return kind if index is None else f"{kind}:{index}"


def _layout(name: Any) -> str:
    if type(name) is not str:
        raise TypeError("not a layout")
    return name


_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_type,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.Size": tuple,
    "torch.device": _device,
    "torch.serialization._get_layout": _layout,
}


def _view(
    storage: _Storage, dtype: np.dtype, offset: int, shape: tuple, strides: tuple, lazy: dict | None = None
) -> np.ndarray:
    """The tensor as a read-only view of its storage; everything is checked before numpy is asked."""
    if lazy:
        raise Problem(f"it holds a tensor that is conjugated or negated only when used; {_REMEDY}")
    if type(shape) is not tuple or type(strides) is not tuple or len(shape) != len(strides):
        raise TypeError("not a tensor")
    _check_counts(offset, *shape, *strides)
    elements, size = storage.ref.visible_nbytes // dtype.itemsize, math.prod(shape)
    end = offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True)) + 1 if size else offset
    absurd = math.prod(side or 1 for side in shape) > max(elements, _MOST_REPEATED)
    if end > elements or absurd or len(shape) > _MOST_DIMENSIONS:
        raise Problem(
            f"a tensor of shape {shape}, strides {strides} and offset {offset} does not fit its storage of {elements}"
            " elements, so the file is damaged; copy or download it again"
        )
    if storage.data is None or not size:
        empty = np.zeros((0,) if size else shape, dtype)
        empty.setflags(write=False)
        return empty
    # The stride along an axis of one element is never used, and might be too large for numpy.
    steps = [stride * dtype.itemsize if side > 1 else 0 for side, stride in zip(shape, strides, strict=True)]
    return np.ndarray(shape, dtype, buffer=storage.data, offset=offset * dtype.itemsize, strides=steps)


def pickle_state_dict(entries: Iterable[tuple[str, str, str, tuple[int, ...]]]) -> bytes:
    """The pickle of a flat state dict of contiguous tensors, in the order given.

    Args:
      entries: (name, class of the storage in `STORAGE_DTYPES`, key of the storage, shape) of each tensor.
    """
    ordered_dict = _global("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE
    parts = [pickle.PROTO, b"\x02", ordered_dict, pickle.MARK]
    for name, storage, key, shape in entries:
        strides = tuple(math.prod(max(side, 1) for side in shape[axis + 1 :]) for axis in range(len(shape)))
        identity = [_text("storage"), _global("torch", storage), _text(key), _text("cpu"), _integer(math.prod(shape))]
        arguments = [_tuple(identity) + pickle.BINPERSID, _integer(0), _tuple(map(_integer, shape))]
        arguments += [_tuple(map(_integer, strides)), pickle.NEWFALSE, ordered_dict]
        parts += [_text(name), _global("torch._utils", "_rebuild_tensor_v2"), _tuple(arguments), pickle.REDUCE]
    return b"".join([*parts, pickle.SETITEMS, pickle.STOP])


def _global(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _text(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogatepass")
    return pickle.BINUNICODE + struct.pack("<I", len(encoded)) + encoded


def _integer(number: int) -> bytes:
    if number < 2**31:
        return pickle.BININT + struct.pack("<i", number)
    encoded = pickle.encode_long(number)
    return pickle.LONG1 + bytes([len(encoded)]) + encoded


def _tuple(items: Iterable[bytes]) -> bytes:
    return pickle.MARK + b"".join(items) + pickle.TUPLE
