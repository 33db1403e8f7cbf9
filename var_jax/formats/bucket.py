"""Folders in a bucket (gs://BUCKET/FOLDER) beside local ones: opened, read through a local copy, written whole.

A bucket has no folders and renames nothing at once, so a folder written there is whole when its last file is.
"""

from __future__ import annotations

import contextlib
import glob
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from etils import epath
from etils.epath.gpath import PosixGPath

from var_jax.errors import InputError
from var_jax.formats.atomic import atomic_directory


@epath.register_path_cls
class _Folder(PosixGPath):
    """A local path whose own characters are no pattern: Orbax looks for a checkpoint's parts by `glob`."""

    def glob(self, pattern: str) -> Iterator[_Folder]:
        for name in glob.glob(pattern, root_dir=os.fspath(self)):
            yield self / name


def in_bucket(path: str | os.PathLike[str]) -> bool:
    """Whether the path is an address and not a local path."""
    return "://" in os.fspath(path)


def open_folder(path: str | os.PathLike[str]) -> epath.Path:
    """The folder as an absolute path to read and write through, whether it exists or not.

    Raises:
      InputError: for an address that is no bucket's, without the library for it, or if it cannot be reached.
    """
    if not in_bucket(path):
        return _Folder(os.path.abspath(path))  # checkpoints are refused anything else
    if not os.fspath(path).startswith("gs://"):
        raise InputError(f"{path}: of addresses only gs://BUCKET/FOLDER is understood; give that or a local path")
    folder = epath.Path(path)
    try:
        folder.exists()
    except ImportError:
        raise InputError(f"{path}: a bucket needs gcsfs; install it: pip install 'var_jax[gcs]'") from None
    except Exception as error:  # of network, credentials or client library
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(f"{path}: the bucket cannot be reached ({reason}); check address and credentials") from error
    return folder


@contextlib.contextmanager
def local_files(folder: str | os.PathLike[str], names: Sequence[str]) -> Iterator[Path]:
    """Yields a local folder with those of the named files that `folder` has: itself, or a temporary copy.

    Raises:
      InputError: if the bucket cannot be reached; one raised by the body names the bucket in the copy's place.
    """
    if not in_bucket(folder):
        yield Path(folder)
        return
    distant = open_folder(folder)
    with tempfile.TemporaryDirectory() as copy:
        for name in names:
            if (distant / name).exists():
                (distant / name).copy(epath.Path(copy) / name)
        try:
            yield Path(copy)
        except InputError as error:
            raise InputError(str(error).replace(copy, os.fspath(folder))) from None


@contextlib.contextmanager
def new_directory(path: str | os.PathLike[str], last: str) -> Iterator[Path]:
    """Yields a local folder to fill; its files become those of `path` when the body ends well.

    In a bucket the file `last` follows when the others are there: without it a folder counts as not written.

    Raises:
      InputError: if `path` is taken, or cannot be written.
    """
    if not in_bucket(path):
        with atomic_directory(path) as folder:
            yield folder
        return
    distant = open_folder(path)
    if (distant / last).exists():
        raise InputError(f"{path}: the folder exists and is not empty; choose another --out or remove it")
    with tempfile.TemporaryDirectory() as copy:
        yield Path(copy)
        for file in sorted(epath.Path(copy).iterdir(), key=lambda file: file.name == last):
            file.copy(distant / file.name, overwrite=True)
