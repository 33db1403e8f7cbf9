"""The pickle inside a PyTorch file: a reader that can run nothing, and a writer of plain state dicts.

The names that PyTorch writes stand for tensors and harmless values. None of them is imported: each is replaced by a
few lines below, and every other name is refused before anything else happens.
"""

from __future__ import annotations

import dataclasses
import math
import pickle
import struct
import types
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from var_jax.formats.safe_pickle import Problem, SafeUnpickler, fill_dict, require

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

_MOST_BYTES = 2**25  # of a pickle; the storages lie outside it
_MOST_DIMENSIONS = 32
# A tensor may show one element many times (`expand`); beyond this many elements we call it damage.
_MOST_REPEATED = 2**28
_REMEDY = "re-save its state dict alone, as a plain dict of tensors"


@dataclasses.dataclass(frozen=True)
class StorageRef:
    """A storage as a pickle names it: key, element type and count, and for an old view its place in the root."""

    key: str
    dtype: np.dtype
    elements: int
    view: tuple[int, int] | None = None  # (first element, elements) within the storage `key`

    @property
    def nbytes(self) -> int:
        """Bytes of the whole storage."""
        return self.elements * self.dtype.itemsize


# Returns the bytes of a storage, or of its view, as uint8; or None to leave its tensors empty.
LoadStorage = Callable[[StorageRef], np.ndarray | None]


def read_pickle(stream: BinaryIO, load_storage: LoadStorage | None = None) -> Any:
    """Reads one pickle from the stream's position and stops right behind it.

    Args:
      stream: anything with read, tell and seek.
      load_storage: gives the bytes of a storage; without it a pickle that holds tensors is a Problem.

    Returns:
      Plain containers with read-only numpy arrays in the place of tensors and parameters; sizes are
      tuples, devices and types are text like "cuda:0" and "torch.float16".

    Raises:
      Problem: for damage, for every name that is not on the list, and beyond the budgets.
    """
    start = stream.tell()
    unpickler = _TorchUnpickler(stream.read(_MOST_BYTES), load_storage)
    result = unpickler.unpickle()
    stream.seek(start + unpickler.content.tell())
    _check_plain(result)
    return result


def _check_plain(tree: Any) -> None:
    """A function, a type or a storage may be named on the way to a tensor, but must not be left over in the result."""
    pending, seen = [tree], set()
    while pending:
        value = pending.pop()
        if id(value) in seen:
            continue
        if type(value) is _Storage or isinstance(value, (np.dtype, types.FunctionType)):
            name = next((name for name, known in _NAMES.items() if known is value), "storage")
            raise Problem(f"it holds the bare object {name} beside its tensors; {_REMEDY}")
        if type(value) in (dict, list, tuple):
            seen.add(id(value))
            pending.extend(value.values() if type(value) is dict else value)


@dataclasses.dataclass(frozen=True)
class _Storage:
    dtype: np.dtype
    data: np.ndarray | None


def _are_counts(*numbers: Any) -> bool:
    return all(type(number) is int and 0 <= number < 2**63 for number in numbers)


def _ordered_dict(pairs: Iterable = ()) -> dict:
    made: dict = {}
    fill_dict(made, [item for key, value in pairs for item in (key, value)])  # Python 2 wrote the pairs as argument
    return made


def _tensor(storage: Any, offset: int, shape: tuple, strides: tuple, *rest: Any) -> np.ndarray:
    # `rest` is empty in the oldest files, later (requires_grad, hooks) and perhaps a dict of lazy operations.
    require(type(storage) is _Storage and len(rest) <= 3)
    return _view(storage.data, storage.dtype, offset, shape, strides, *rest[2:])


def _tensor_of_type(storage: Any, offset: int, shape: tuple, strides: tuple, *rest: Any) -> np.ndarray:
    _, _, dtype, *lazy = rest
    require(type(storage) is _Storage and type(dtype) is str and len(lazy) <= 1)
    return _view(storage.data, DTYPES[dtype.removeprefix("torch.")], offset, shape, strides, *lazy)


def _parameter(data: Any, _gradient: Any = None, _hooks: Any = None, _state: Any = None) -> np.ndarray:
    require(isinstance(data, np.ndarray))
    return data


def _size(sides: Any) -> tuple:
    require(type(sides) in (tuple, list))
    return tuple(sides)


def _device(kind: Any, index: Any = None) -> str:
    require(type(kind) is str and type(index) in (int, type(None)))
    return kind if index is None else f"{kind}:{index}"


def _layout(name: Any) -> str:
    require(type(name) is str)
    return name


_NAMES = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_type,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.Size": _size,
    "torch.device": _device,
    "torch.serialization._get_layout": _layout,
    "torch.storage.UntypedStorage": UNTYPED,
}
_NAMES |= {f"torch.{name}": dtype for name, dtype in STORAGE_DTYPES.items()}
_NAMES |= {f"torch.{name}": f"torch.{name}" for name in DTYPES}


class _TorchUnpickler(SafeUnpickler):
    names, remedy = _NAMES, _REMEDY

    def __init__(self, content: bytes, load_storage: LoadStorage | None):
        super().__init__(content)
        self.load_storage = load_storage

    def persistent_load(self, identity: Any) -> _Storage:
        require(self.load_storage is not None and type(identity) is tuple and len(identity) in (5, 6))
        kind, dtype, key, _, elements, view = (*identity, None)[:6]
        require(kind == "storage" and isinstance(dtype, np.dtype) and type(key) is str and len(key) < 100)
        require(_are_counts(elements))
        if view is not None:
            _, first, size = view
            require(_are_counts(first, size))
            view = (first, size)
        return _Storage(dtype, self.load_storage(StorageRef(key, dtype, elements, view)))


def _view(
    data: np.ndarray | None,
    dtype: np.dtype,
    offset: int,
    shape: tuple,
    strides: tuple,
    lazy: dict | None = None,
) -> np.ndarray:
    """The tensor as a read-only view of its storage; everything is checked before numpy sees it."""
    if lazy:
        raise Problem(f"it holds a tensor that is conjugated or negated only when used; {_REMEDY}")
    require(type(shape) is tuple and type(strides) is tuple and len(shape) == len(strides))
    require(_are_counts(offset, *shape, *strides))
    elements = 0 if data is None else len(data) // dtype.itemsize
    if data is not None and not _fits(elements, offset, shape, strides):
        raise Problem(
            f"a tensor of shape {str(shape)[:200]}, strides {str(strides)[:200]} and offset {offset} does not fit its"
            f" storage of {elements} elements, so the file is damaged; copy or download it again"
        )
    if data is None or 0 in shape:
        empty = np.zeros((0,) if data is None else shape, dtype)
        empty.setflags(write=False)
        return empty
    # The stride along an axis of one element is never used, and might be too large for numpy.
    steps = [stride * dtype.itemsize if side > 1 else 0 for side, stride in zip(shape, strides, strict=True)]
    return np.ndarray(shape, dtype, buffer=data, offset=offset * dtype.itemsize, strides=steps)


def _fits(elements: int, offset: int, shape: tuple, strides: tuple) -> bool:
    if len(shape) > _MOST_DIMENSIONS or math.prod(side or 1 for side in shape) > max(elements, _MOST_REPEATED):
        return False
    if 0 in shape:
        return offset <= elements
    return offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True)) < elements


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
