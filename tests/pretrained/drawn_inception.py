"""Weights of the Inception network by the rule of tests/golden/README.md, in the forms of file that people have."""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from var_jax.models.parameters import Params
from var_jax.pretrained.inception import OUTPUTS, POOL, layers


def published_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the .pth file's tensors."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (height, width, inputs, outputs) in layers().items():
        shapes[f"{name}.conv.weight"] = (outputs, inputs, height, width)
        shapes |= {f"{name}.bn.{part}": (outputs,) for part in ("weight", "bias", "running_mean", "running_var")}
    return shapes | {"fc.weight": (OUTPUTS, POOL), "fc.bias": (OUTPUTS,)}


@functools.cache
def tensors() -> dict[str, np.ndarray]:
    """The .pth file's content, drawn. Not to be changed."""
    return {name: _drawn(name, shape) for name, shape in published_shapes().items()}


def _drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    n = np.random.default_rng(zlib.crc32(f"inception/{name}".encode())).standard_normal(shape).astype(np.float32)
    if name.endswith("conv.weight"):
        return n * np.float32(math.sqrt(2 / math.prod(shape[1:])))
    if name.endswith("bn.weight"):
        return 1 + np.float32(0.1) * n
    if name.endswith("running_var"):
        return 1 + np.float32(0.1) * np.abs(n)
    return n / np.float32(math.sqrt(POOL)) if name == "fc.weight" else np.float32(0.1) * n


def params() -> Params:
    """The same as `Inception` takes them, put together without the reader."""
    named = tensors()
    parts = {"scale": "weight", "bias": "bias", "mean": "running_mean", "variance": "running_var"}
    tree: dict[str, Any] = {
        name: {"kernel": named[f"{name}.conv.weight"].transpose(2, 3, 1, 0)}
        | {ours: named[f"{name}.bn.{theirs}"] for ours, theirs in parts.items()}
        for name in layers()
    }
    tree["fc"] = {"kernel": named["fc.weight"].T, "bias": named["fc.bias"]}
    return jax.tree.map(np.ascontiguousarray, tree)


def graph(constants: Mapping[str, np.ndarray], others: Iterable[bytes] = ()) -> bytes:
    """A GraphDef of `Const` nodes: a short row of numbers as float_val, packed or not in turn, a long one as bytes."""
    nodes = [_node(name, array, index % 2 == 0) for index, (name, array) in enumerate(constants.items())]
    return b"".join([*others, *(field(1, node) for node in nodes)])


def field(number: int, value: bytes | int) -> bytes:
    """One field of a protobuf message."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _node(name: str, array: np.ndarray, packed: bool) -> bytes:
    data = array.astype("<f4").tobytes()
    if array.size > 64:
        content = field(4, data)
    elif packed:
        content = field(5, data)
    else:
        content = b"".join(_varint(5 << 3 | 5) + data[at : at + 4] for at in range(0, len(data), 4))
    shape = field(2, b"".join(field(2, field(1, side)) for side in array.shape))
    value = field(8, field(1, 1) + shape + content)
    kind = field(5, field(1, b"dtype") + field(2, field(6, 1)))
    return field(1, name.encode()) + field(2, b"Const") + kind + field(5, field(1, b"value") + field(2, value))
