"""Reads small files that describe other ones (JSON, notes, arrays of an .npz); any damage is one sentence.

Such files lie beside much work and may be cut short, hand-edited, or made to do harm: their bytes, their depth and the
type of every field are checked before anything is made of them.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from etils import epath

from var_jax.errors import InputError

AGAIN = "copy it again"
_MOST_BYTES = 2**24  # of a text; the index of a store of ImageNet's tokens has some 100 KB
_MOST_LEVELS = 50
_MOST_ARRAY_BYTES = 2**28  # of an array; the largest are covariances of 2048 features, 32 MiB
_REASON = 200  # characters of a library's explanation


class Kind(NamedTuple):
    """What a field of a JSON object may hold: in words, and as a test."""

    words: str
    fits: Callable[[Any], bool]


COUNT = Kind("a whole number from 0 on", lambda value: type(value) is int and 0 <= value < 2**53)
NUMBER = Kind("a finite number", lambda value: type(value) in (int, float) and abs(value) < math.inf)
TEXT = Kind("a text", lambda value: type(value) is str)
OBJECT = Kind("an object", lambda value: type(value) is dict)
LIST = Kind("a list", lambda value: type(value) is list)
TEXTS = Kind("a list of texts", lambda value: type(value) is list and all(type(each) is str for each in value))


def read_text(path: str | os.PathLike[str], what: str, remedy: str = AGAIN) -> str:
    """The text of a small file, local or in a bucket.

    Args:
      path: of the file.
      what: it is, for messages: "the index of a store".
      remedy: against damage, a phrase.

    Raises:
      InputError: if it is missing, too large, no regular file, cannot be read, or is not UTF-8.
    """
    return _read(path, what, "text", remedy)


def _read(path: str | os.PathLike[str], what: str, how: str, remedy: str) -> str:
    file = path if isinstance(path, (Path, epath.Path)) else Path(path)
    try:
        if file.exists() and not file.is_file():  # to open a pipe would wait for a writer
            raise InputError(f"{path}: expected {what}, but this is not a regular file; check the path")
        with file.open("rb") as opened:
            content = opened.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise InputError(f"{path}: has more than {_MOST_BYTES >> 20} MiB, too much for {what}; {remedy}")
        return content.decode()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file, expected {what}; check the path") from None
    except (OSError, ValueError) as error:
        raise _refused(path, what, how, error, remedy) from None


def read_json(path: str | os.PathLike[str], what: str, remedy: str = AGAIN) -> dict[str, Any]:
    """The JSON object in a small file; see `read_text`.

    Raises:
      InputError: see `read_text`; also for anything but an object in JSON, nested less than 50 deep.
    """
    return parse_json(_read(path, what, "JSON", remedy), path, what, remedy)


def parse_json(text: str, path: str | os.PathLike[str], what: str, remedy: str = AGAIN) -> dict[str, Any]:
    """The JSON object in `text`, which `path` holds; see `read_json`."""
    try:
        content = json.loads(text)
        if type(content) is not dict:
            raise InputError(f"{path}: is not {what}, expected an object in JSON; check the path")
        _check_depth(content)
    except (ValueError, RecursionError) as error:
        raise _refused(path, what, "JSON", error, remedy) from None
    return content


def _check_depth(content: Any) -> None:
    level = [content]
    for _ in range(_MOST_LEVELS):
        inner = [each.values() if type(each) is dict else each for each in level if type(each) in (dict, list)]
        level = [value for values in inner for value in values]
    if level:
        raise ValueError(f"nested more than {_MOST_LEVELS} deep")


def require_fields(
    content: Mapping[str, Any], path: str | os.PathLike[str], fields: Mapping[str, Kind], remedy: str = AGAIN
) -> None:
    """Checks that an object of a JSON file has these fields, each of its kind.

    Raises:
      InputError: naming the file and the first field that is missing or holds something else.
    """
    for name, kind in fields.items():
        if name not in content:
            raise InputError(f"{path}: has no '{name}', expected {kind.words}; {remedy}")
        if not kind.fits(content[name]):
            found = ascii(content[name])[:60]
            raise InputError(f"{path}: '{name}' is {found}, expected {kind.words}; {remedy}")


class Header(NamedTuple):
    """What an array in an archive says of itself."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return math.prod(self.shape) * self.dtype.itemsize


class Archive:
    """An open .npz, whose arrays are read one by one.

    Attributes:
      names: of the arrays.
    """

    def __init__(self, path: str | os.PathLike[str], archive: zipfile.ZipFile, remedy: str) -> None:
        self._path, self._archive, self._remedy = path, archive, remedy
        self.names = frozenset(name.removesuffix(".npy") for name in archive.namelist())

    def check_names(self) -> None:
        """Refuses an archive whose directory names an entry otherwise than the entry itself does."""
        for info in self._archive.infolist():
            with self._reporting(info.filename), self._archive.open(info):
                pass

    def checksum(self, name: str) -> int:
        """The CRC-32 of an array as the archive records it."""
        return self._archive.getinfo(f"{name}.npy").CRC

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[tuple[Header, IO[bytes]]]:
        """Yields an array's header and its bytes, read on until the end of the body.

        Raises:
          InputError: if there is no such array, it is damaged, or holds anything but numbers or text.
        """
        with self._reporting(name):
            info = self._archive.getinfo(f"{name}.npy")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
                raise ValueError("encrypted, or packed in an unusual way")
            with self._archive.open(info) as file:
                header = _header(file)
                if header.nbytes != info.file_size - file.tell():
                    raise ValueError(f"{header.dtype} {header.shape} does not have {info.file_size} bytes")
                yield header, file

    def read(self, name: str) -> np.ndarray:
        """An array of at most 256 MiB, its checksum compared."""
        with self.open(name) as (header, file):
            if header.nbytes > _MOST_ARRAY_BYTES:
                raise ValueError(f"has {header.nbytes} bytes")
            array = np.frombuffer(file.read(), header.dtype)
            return array.reshape(header.shape, order="F" if header.fortran else "C")

    @contextlib.contextmanager
    def _reporting(self, name: str) -> Iterator[None]:
        try:
            yield
        except InputError:
            raise
        except KeyError:
            raise InputError(f"{self._path}: has no array called {name}; {self._remedy}") from None
        except Exception as error:  # zip, zlib and numpy each raise their own on damage, and nothing of ours runs here
            reason = _short(error)
            raise InputError(f"{self._path}: {name} is damaged or no array ({reason}); {self._remedy}") from None


@contextlib.contextmanager
def open_arrays(path: str | os.PathLike[str], what: str, remedy: str = AGAIN) -> Iterator[Archive]:
    """Opens an .npz; see `Archive`.

    Raises:
      InputError: if the file is missing or no archive.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise InputError(f"{path}: expected {what}, but this is not a regular file; check the path")
        archive = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file, expected {what}; check the path") from None
    except InputError:
        raise
    except Exception as error:  # half a dozen kinds on damaged directories
        raise InputError(f"{path}: is not a whole .npz file ({_short(error)}); {remedy}") from None
    with archive:
        yield Archive(path, archive, remedy)


def read_arrays(
    path: str | os.PathLike[str], what: str, names: Sequence[str], remedy: str = AGAIN
) -> dict[str, np.ndarray]:
    """The named arrays of a small .npz; see `open_arrays` and `Archive.read`."""
    with open_arrays(path, what, remedy) as archive:
        return {name: archive.read(name) for name in names}


def _header(file: IO[bytes]) -> Header:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    header = Header(*read(file))
    if (
        header.dtype.hasobject
        or header.dtype.names
        or not all(type(side) is int and side >= 0 for side in header.shape)
    ):
        raise ValueError(f"{header.dtype} {header.shape}, expected plain numbers")
    return header


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:_REASON] or type(error).__name__


def _refused(path: str | os.PathLike[str], what: str, how: str, error: Exception, remedy: str) -> InputError:
    if isinstance(error, InputError):
        return error
    reason = (isinstance(error, OSError) and error.strerror) or _short(error)
    return InputError(f"{path}: {what} cannot be read as {how} ({reason}); {remedy}")
