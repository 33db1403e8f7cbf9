"""PyTorch's files without PyTorch: the zip format, the legacy format, and a writer of plain state dicts.

Storages are views of a memory map of the file, so opening a checkpoint of several GB costs no memory
until an array is used. The pickle inside, and all that is refused there, is in `torch_pickle.py`.
"""

from __future__ import annotations

import io
import mmap
import os
import sys
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from var_jax.errors import InputError
from var_jax.formats.atomic import atomic_file
from var_jax.formats.mapped import map_file
from var_jax.formats.safe_pickle import Problem
from var_jax.formats.torch_pickle import (
    STORAGE_DTYPES,
    UNTYPED,
    StorageRef,
    pickle_state_dict,
    read_pickle,
)

ZIP_START = b"PK\x03\x04"
PICKLE_START = b"\x80"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_AGAIN = "copy or download it again"
_LOCAL_HEADER = 30  # bytes before the name in a zip entry's own header
_LARGE = 2**30  # bytes from which an entry gets 64-bit sizes, well below where it must
_MOST_UNPACKED = 16  # of compressed entries' bytes per byte of the file: weights compress by less than half
_LEAST_UNPACKED = 2**28  # bytes allowed to any file, however small
_ALIGNMENT = 64  # PyTorch starts each storage at a multiple of this, and so do we
_STORAGE_CLASSES = {dtype: name for name, dtype in STORAGE_DTYPES.items()}


def read_torch_file(path: str | os.PathLike[str]) -> Any:
    """Reads a file written by `torch.save`, executing nothing that it holds.

    Returns:
      The saved object as plain containers: dicts (ordered ones too), lists, tuples, text, numbers, None,
      and read-only numpy arrays for tensors and parameters. Tensors that shared memory still do; an
      array of the legacy format may be unaligned. The file must not be overwritten in place meanwhile.

    Raises:
      InputError: if the file is missing, damaged or not PyTorch's, or names a Python object other than
        tensors and plain containers.
    """
    mapped = map_file(path)
    try:
        if mapped[:4] == ZIP_START:
            return _Archive(mapped).read()
        if mapped[:1] == PICKLE_START:
            return _read_legacy(mapped)
        raise Problem("this is not a PyTorch file, neither a zip nor a pickle; give a .pth file written by torch.save")
    except Problem as problem:
        raise InputError(f"{path}: {problem}") from None


class _Archive:
    """The zip format: `<prefix>/data.pkl`, `<prefix>/data/<key>` for each storage, perhaps `<prefix>/byteorder`."""

    def __init__(self, mapped: mmap.mmap):
        self.bytes = np.frombuffer(mapped, np.uint8)
        try:
            with zipfile.ZipFile(mapped) as archive:
                self.entries = {info.filename: info for info in archive.infolist()}
        except Exception:  # the parser raises half a dozen kinds on damaged directories, and nothing of ours runs here
            raise Problem(f"the zip file is damaged or cut short; {_AGAIN}") from None
        pickles = [name for name in self.entries if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise Problem(
                f"the zip file holds {len(pickles)} data.pkl where a PyTorch checkpoint has one; give a .pth file"
                " written by torch.save"
            )
        self.prefix = pickles[0].removesuffix("data.pkl")
        self.packed_left = len(self.bytes)
        self.unpacked_left = max(_MOST_UNPACKED * len(self.bytes), _LEAST_UNPACKED)
        self.swapped = False
        self.refs: dict[str, StorageRef] = {}
        self.loaded: dict[str, np.ndarray] = {}

    def read(self) -> Any:
        order = sys.byteorder
        if self.prefix + "byteorder" in self.entries:
            order = self.entry("byteorder").tobytes().decode("latin-1")
        if order not in ("little", "big"):
            raise Problem(f"its byte order is {order[:20]!a} where little or big was expected; {_AGAIN}")
        self.swapped = order != sys.byteorder
        return read_pickle(io.BytesIO(self.entry("data.pkl").tobytes()), self.storage)

    def storage(self, ref: StorageRef) -> np.ndarray:
        """Bytes of a storage, the same array each time, so that tensors share memory as they did."""
        known = self.refs.setdefault(ref.key, ref)
        if known != ref or ref.view is not None:
            raise Problem(f"its storage {ref.key!a} has two types or sizes, or is a view; {_AGAIN}")
        if ref.key not in self.loaded:
            data = self.entry(f"data/{ref.key}")
            if len(data) < ref.nbytes:
                raise Problem(
                    f"storage {ref.key!a} has {len(data)} bytes where its tensors need {ref.nbytes}; {_AGAIN}"
                )
            if self.swapped and ref.dtype == UNTYPED:
                raise Problem(f"storage {ref.key!a} has no type, so its byte order cannot be changed; re-save the file")
            self.loaded[ref.key] = _native(data[: ref.nbytes], ref.dtype) if self.swapped else data[: ref.nbytes]
        return self.loaded[ref.key]

    def entry(self, name: str) -> np.ndarray:
        """Bytes of one entry as uint8: a view of the map, or a copy if the entry is compressed."""
        info = self.entries.get(self.prefix + name)
        if info is None:
            raise Problem(f"its part {name!a} is missing from the zip file; {_AGAIN}")
        header = self.bytes[info.header_offset : info.header_offset + _LOCAL_HEADER].tobytes()
        start = info.header_offset + _LOCAL_HEADER
        start += int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        packed = self.bytes[start : start + info.compress_size]
        if header[:4] != ZIP_START or len(packed) != info.compress_size:
            raise Problem(f"its part {name!a} is damaged or cut short; {_AGAIN}")
        self.packed_left -= len(packed)
        if self.packed_left < 0:
            raise Problem(f"its parts overlap one another, so the file is damaged; {_AGAIN}")
        data = self._unpacked(name, info, packed)
        # PyTorch has an option that leaves the checksums out, and writes 0 then.
        if len(data) != info.file_size or (info.CRC and zlib.crc32(data) != info.CRC):
            raise Problem(f"its part {name!a} is damaged, for its checksum differs; {_AGAIN}")
        return data

    def _unpacked(self, name: str, info: zipfile.ZipInfo, packed: np.ndarray) -> np.ndarray:
        if info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1:
            return packed
        if info.compress_type != zipfile.ZIP_DEFLATED or info.flag_bits & 1:
            raise Problem(f"its part {name!a} is encrypted or packed in an unusual way; zip it again without that")
        self.unpacked_left -= info.file_size
        if self.unpacked_left < 0:
            raise Problem("it unpacks to far more than any weights would; zip it again without compression")
        try:
            # The limit keeps a small file from filling the memory with more than it announced.
            return np.frombuffer(zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, info.file_size + 1), np.uint8)
        except (zlib.error, MemoryError, OverflowError):
            raise Problem(f"its part {name!a} is damaged and cannot be unpacked; {_AGAIN}") from None


def _read_legacy(mapped: mmap.mmap) -> Any:
    """Five pickles (magic, protocol, system, the object, keys of the storages), then the storages one by one.

    The element types of the storages are known from the object only, and its arrays from the storages
    only, so the object is read twice: once for the references, once for good.
    """
    if read_pickle(mapped) != _LEGACY_MAGIC:
        raise Problem("this is a pickle, but PyTorch did not write it; give a .pth file written by torch.save")
    if read_pickle(mapped) != _LEGACY_PROTOCOL:
        raise Problem(f"its legacy format is not version {_LEGACY_PROTOCOL}; re-save it with a newer PyTorch")
    read_pickle(mapped)  # of the writing machine; storages are little-endian on every machine
    start = mapped.tell()
    roots: dict[str, StorageRef] = {}

    def note(ref: StorageRef) -> None:
        known = roots.setdefault(ref.key, ref)
        if (known.dtype, known.elements) != (ref.dtype, ref.elements):
            raise Problem(f"its storage {ref.key!a} has two types or sizes; {_AGAIN}")

    read_pickle(mapped, note)
    storages = _legacy_storages(mapped, read_pickle(mapped), roots)

    def load(ref: StorageRef) -> np.ndarray:
        data = storages[ref.key]
        if ref.view is None:
            return data
        first, elements = (count * ref.dtype.itemsize for count in ref.view)
        if first + elements > len(data):
            raise Problem(f"a view of storage {ref.key!a} reaches beyond its end; {_AGAIN}")
        return data[first : first + elements]

    mapped.seek(start)
    return read_pickle(mapped, load)


def _legacy_storages(mapped: mmap.mmap, keys: Any, roots: dict[str, StorageRef]) -> dict[str, np.ndarray]:
    """Bytes of each storage, from the map's position on: an 8-byte count of elements, then the elements."""
    if type(keys) is not list or not all(type(key) is str for key in keys) or set(keys) != set(roots):
        raise Problem(f"its list of storages does not agree with its tensors; {_AGAIN}")
    everything = np.frombuffer(mapped, np.uint8)
    position, storages = mapped.tell(), {}
    for key in keys:
        ref = roots[key]
        elements = int.from_bytes(everything[position : position + 8].tobytes(), "little")
        data = everything[position + 8 : position + 8 + ref.nbytes]
        if len(data) < ref.nbytes or elements != ref.elements:
            raise Problem(f"the file is cut short or damaged in the storage {key!a}; {_AGAIN}")
        storages[key] = data if sys.byteorder == "little" else _native(data, ref.dtype)
        position += 8 + ref.nbytes
    return storages


def _native(data: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The storage's bytes in this machine's byte order; a complex number swaps its two halves apart."""
    width = dtype.itemsize // (2 if dtype.kind == "c" else 1)
    swapped = data.view(f"u{width}").byteswap().view(np.uint8)
    swapped.setflags(write=False)
    return swapped


def write_torch_file(path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray]) -> None:
    """Writes a flat state dict that `torch.load(path, weights_only=True)` reads, bit for bit and in this order.

    The same tensors give the same bytes. An existing file is replaced once the new one is whole.

    Raises:
      InputError: for a type that PyTorch has no storage for, or if the disk or the permissions forbid it.
    """
    entries = []
    for key, (name, value) in enumerate(tensors.items()):
        array = np.asarray(value)
        storage = _STORAGE_CLASSES.get(array.dtype.newbyteorder("="))
        if not isinstance(name, str) or storage is None:
            raise InputError(
                f"{path}: tensor {name!r} of type {array.dtype} cannot be written; expected text as name and one of "
                + ", ".join(dtype.name for dtype in _STORAGE_CLASSES)
            )
        entries.append((name, storage, str(key), array.shape))
    with atomic_file(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        _add(archive, "data.pkl", memoryview(pickle_state_dict(entries)))
        _add(archive, "byteorder", memoryview(sys.byteorder.encode()))
        for key, value in enumerate(tensors.values()):
            array = np.asarray(value)
            native = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
            _add(archive, f"data/{key}", memoryview(native.reshape(-1).view(np.uint8)))
        _add(archive, "version", memoryview(b"3\n"))


def _add(archive: zipfile.ZipFile, name: str, content: memoryview) -> None:
    """Adds one uncompressed entry whose content starts at a multiple of `_ALIGNMENT`."""
    info = zipfile.ZipInfo(f"archive/{name}")  # with the format's oldest date, so that equal content gives equal files
    info.file_size = len(content)
    large = len(content) > _LARGE
    # A large entry's header grows by 20 bytes for its 64-bit sizes; an extra field ("FB") fills up the rest.
    ahead = archive.fp.tell() + _LOCAL_HEADER + len(info.filename) + (20 if large else 0) + 4
    padding = -ahead % _ALIGNMENT
    info.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
    with archive.open(info, "w", force_zip64=large) as entry:
        entry.write(content)
