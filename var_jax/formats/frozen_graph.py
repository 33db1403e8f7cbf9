"""The constants of a frozen TensorFlow graph (GraphDef, `.pb`), without TensorFlow.

A GraphDef is a protobuf message. Of its wire format little is needed: a message is a row of fields, each a number, a
kind and a value, and what is not asked for is stepped over. Nothing in the file is run.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator

import numpy as np

from var_jax.errors import InputError
from var_jax.formats.mapped import map_file

# Field numbers of tensorflow/core/framework/{graph,node_def,attr_value,tensor,tensor_shape}.proto.
_GRAPH_NODE = 1
_NODE_NAME, _NODE_OP, _NODE_ATTRIBUTE = 1, 2, 5
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_VALUE_TENSOR = 8
_TENSOR_TYPE, _TENSOR_SHAPE, _TENSOR_CONTENT, _TENSOR_FLOATS = 1, 2, 4, 5
_SHAPE_DIMENSION, _DIMENSION_SIZE = 2, 1
_FLOAT32 = 1  # DT_FLOAT
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MOST_NUMBERS = 2**31

Value = int | memoryview


def read_constants(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The float32 `Const` nodes of a frozen graph by their names; constants of other types are left out.

    Returns:
      Read-only arrays, those of many numbers as views of a memory map of the file.

    Raises:
      InputError: if the file is missing, cut short or not a GraphDef.
    """
    mapped = map_file(path)
    constants: dict[str, np.ndarray] = {}
    try:
        for number, node in _fields(memoryview(mapped)):
            if number == _GRAPH_NODE:
                name, array = _node(_message(node))
                if array is not None:
                    constants[name] = array
    except (ValueError, IndexError, struct.error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is no whole frozen TensorFlow graph ({error}); copy or download it again") from None
    return constants


def _fields(message: memoryview) -> Iterator[tuple[int, Value]]:
    """Number and value of every field: an int, or the bytes of a text, a message, a row of numbers."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        if not number:
            raise ValueError("a field has the number 0")
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"a field is of the unknown kind {kind}")
        if at + size > len(message):
            raise ValueError(f"a field of {size} bytes goes beyond the end")
        yield number, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """An unsigned number of seven bits a byte, low ones first, and where the next thing starts."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("a number goes beyond the end")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number has more than ten bytes")


def _message(value: Value) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number stands where a message belongs")
    return value


def _text(value: Value) -> str:
    return str(_message(value), "utf-8")


def _node(message: memoryview) -> tuple[str, np.ndarray | None]:
    """A node's name, and its array if it is a float32 constant."""
    name, op, tensor = "", "", None
    for number, value in _fields(message):
        if number == _NODE_NAME:
            name = _text(value)
        elif number == _NODE_OP:
            op = _text(value)
        elif number == _NODE_ATTRIBUTE:
            entry = dict(_fields(_message(value)))
            if _ENTRY_KEY in entry and _text(entry[_ENTRY_KEY]) == "value" and _ENTRY_VALUE in entry:
                tensor = dict(_fields(_message(entry[_ENTRY_VALUE]))).get(_VALUE_TENSOR)
    if op != "Const" or tensor is None:
        return name, None
    return name, _tensor(name, _message(tensor))


def _tensor(name: str, message: memoryview) -> np.ndarray | None:
    kind, shape, content, floats = 0, (), b"", []
    for number, value in _fields(message):
        if number == _TENSOR_TYPE:
            kind = value
        elif number == _TENSOR_SHAPE:
            shape = tuple(_sizes(_message(value)))
        elif number == _TENSOR_CONTENT:
            content = _message(value)
        elif number == _TENSOR_FLOATS:  # alone or, packed, many in one field
            floats.append(np.frombuffer(_message(value), "<f4"))
    if kind != _FLOAT32:
        return None
    size = math.prod(shape)
    array = np.frombuffer(content, "<f4") if len(content) else np.concatenate([*floats, np.zeros(0, "<f4")])
    if not len(content) and 0 < array.size < size:  # left-out numbers at the end repeat the last one
        array = np.concatenate([array, np.full(size - array.size, array[-1])])
    if array.size != size:
        raise ValueError(f"the constant {name} has {array.size} numbers for the shape {shape}")
    return array.reshape(shape)


def _sizes(message: memoryview) -> Iterator[int]:
    for number, value in _fields(message):
        if number == _SHAPE_DIMENSION:
            size = dict(_fields(_message(value))).get(_DIMENSION_SIZE, 0)
            if not isinstance(size, int) or size >= _MOST_NUMBERS:
                raise ValueError("a constant's shape has a side that cannot be")
            yield size
