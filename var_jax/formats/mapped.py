"""Opens a file for reading as a memory map, or says in one sentence why that is impossible."""

from __future__ import annotations

import mmap
import os

from var_jax.errors import InputError


def map_file(path: str | os.PathLike[str]) -> mmap.mmap:
    """The whole file as a read-only memory map, which costs address space and not memory.

    Arrays made from the map keep it alive; nobody needs to close it.

    Raises:
      InputError: if the file is missing, a folder, empty, or cannot be read.
    """
    try:
        # Opening a pipe would wait for a writer, so the kind of file is checked first.
        if os.path.exists(path) and not os.path.isfile(path):
            kind = "a folder" if os.path.isdir(path) else "not a regular file"
            raise InputError(f"{path}: expected a file, but this is {kind}; give the path of the file itself")
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise InputError(f"{path}: the file is empty; copy or download it again")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except (OSError, ValueError) as error:  # a name with a null character
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read ({reason}); check the path and its permissions") from error
