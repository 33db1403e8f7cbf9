"""Tensors, files and checks that the tests of the formats share."""

from __future__ import annotations

import os
import pickle
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from var_jax.errors import InputError
from var_jax.formats.torch_pickle import STORAGE_DTYPES, pickle_state_dict


def tensors() -> dict[str, np.ndarray]:
    """One of everything that every format must carry, in no alphabetical order."""
    rng = np.random.default_rng(0)
    return {
        "z.weight": rng.standard_normal((3, 4)).astype(np.float32),
        "transposed": rng.standard_normal((3, 4)).astype(np.float32).T,
        "strided": np.arange(20, dtype=np.int64)[::3],
        "double": rng.standard_normal((2, 1, 2)),
        "half": rng.standard_normal(5).astype(np.float16),
        "bfloat": rng.standard_normal((2, 3)).astype(ml_dtypes.bfloat16),
        "big_endian": np.arange(4, dtype=">i4"),
        "bytes": np.arange(7, dtype=np.uint8),
        "short": np.arange(-3, 3, dtype=np.int16),
        "char": np.arange(-3, 3, dtype=np.int8),
        "mask": np.array([[True, False], [False, True]]),
        "scalar": np.array(2.5, np.float32),
        "count": np.array(2**40, np.int64),
        "empty": np.zeros((0, 3), np.float32),
        "special": np.array([np.nan, np.inf, -0.0], np.float32),
        "été": np.ones(1, np.float32),
    }


def same(left: Any, right: Any) -> bool:
    """Equal shape, type and bits, whatever the strides and the byte order in memory."""
    if left.dtype.newbyteorder("=") != right.dtype.newbyteorder("=") or left.shape != right.shape:
        return False
    return left.astype(left.dtype.newbyteorder("=")).tobytes() == right.astype(right.dtype.newbyteorder("=")).tobytes()


def assert_same(left: Mapping[str, Any], right: Mapping[str, Any]) -> None:
    assert set(left) == set(right)
    assert [name for name in left if not same(left[name], right[name])] == []


def legacy_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The arrays as a legacy PyTorch file, put together without PyTorch."""
    names = {dtype: name for name, dtype in STORAGE_DTYPES.items()}
    entries = [(name, names[array.dtype], str(i), array.shape) for i, (name, array) in enumerate(arrays.items())]
    head = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    keys = pickle.dumps([key for _, _, key, _ in entries], 2)
    storages = [array.size.to_bytes(8, "little") + array.tobytes() for array in arrays.values()]
    return b"".join([*head, pickle_state_dict(entries), keys, *storages])


def oldest_legacy_bytes(first: int = 2) -> bytes:
    """{"part": [first, first + 1]} as the first releases wrote it: a view of a root storage of 0 to 5.

    The dict gets its content as a list of pairs, as Python 2 wrote it, and the tensor has four arguments.
    """
    head = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    view = b"(U\x018K" + bytes([first]) + b"K\x02t"
    storage = b"(U\x07storagectorch\nFloatStorage\nU\x017U\x03cpuK\x06" + view + b"tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor\n(" + storage + b"K\x00(K\x02t(K\x01ttR"
    tree = b"\x80\x02ccollections\nOrderedDict\n(]](U\x04part" + tensor + b"eatR."
    return head + tree + pickle.dumps(["7"], 2) + (6).to_bytes(8, "little") + np.arange(6, dtype="<f4").tobytes()


def damaged(content: bytes, count: int, seed: int) -> Iterator[bytes]:
    """`count` truncations, `count` flipped bytes and `count` pairs of flips, at places drawn from the seed."""
    draw = random.Random(seed)
    for _ in range(count):
        yield content[: draw.randrange(len(content))]
    for flips in [1] * count + [2] * count:
        copy = bytearray(content)
        for _ in range(flips):
            copy[draw.randrange(len(copy))] ^= draw.randrange(1, 256)
        yield bytes(copy)


def assert_only_input_errors(read: Callable[[Path], Any], content: bytes, folder: Path, count: int, seed: int) -> None:
    """Reads `count` x 3 damaged copies: each gives a result or one InputError that names the file."""
    path = folder / "damaged.bin"
    refused = 0
    for copy in damaged(content, count, seed):
        path.unlink(missing_ok=True)  # the arrays of the last copy may still be mapped
        path.write_bytes(copy)
        try:
            read(path)
        except InputError as error:
            refused += 1
            assert str(error).startswith(f"{path}: ")
            assert "\n" not in str(error)
    assert refused > count  # every truncation and some flips


def only_files_in(folder: Path) -> list[str]:
    """Everything below the folder, hidden temporaries included."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


class Attack:
    """Unpickles as a call of `function`, which Python's own unpickler would make."""

    def __init__(self, function: Callable[..., Any], *arguments: Any):
        self.call = (function, arguments)

    def __reduce__(self) -> tuple:
        return self.call


def attacks(marker: Path) -> list[tuple[str, Any]]:
    """(name that must be refused, object whose unpickling makes the file `marker`)."""
    code = f"open({os.fspath(marker)!r}, 'w')"
    return [
        (f"{os.system.__module__}.system", Attack(os.system, f"touch '{marker}'")),
        ("eval", Attack(eval, code)),
        ("exec", Attack(exec, code)),
        ("getattr", Attack(getattr, Attack(__import__, "os"), "system")),
    ]
