"""Writes files and folders so that they appear whole or not at all.

The work happens under a temporary name beside the target, is flushed to the disk and takes the
target's name in one step. A failure before that step leaves no trace: neither the temporary nor a parent
folder made for it, and an old file at the target stays as it was.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from var_jax.errors import InputError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# Errors of writing to an open file, which do not carry the name of the file.
_WRITING = _FULL | {errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO}


def local_target(path: str | os.PathLike[str]) -> Path:
    """Where writing to `path` ends up, links followed.

    Raises:
      InputError: for an address like gs://..., which would otherwise become a folder named "gs:".
    """
    if "://" in os.fspath(path):
        raise InputError(f"{path}: this is written to local paths only; give one, and copy the result to the bucket")
    return Path(os.path.realpath(path))


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str], temporary_name: str | None = None) -> Iterator[Path]:
    """Yields a temporary path to write; it becomes `path` when the body ends well, replacing an old file.

    Missing parent folders are made. The temporary exists, empty, when the body starts.

    Args:
      path: of the file to write.
      temporary_name: by default another one each time. A fixed name, left by a killed process, is written over by
        the next attempt; two processes must not use the same at once.

    Raises:
      InputError: if `path` is something else than a file, or the disk or the permissions forbid it.
    """
    target = local_target(path)  # a link stays a link, and its target is replaced
    with _staged(path, target, temporary_name) as temporary:
        found = _mode(target)
        if found is not None and not stat.S_ISREG(found):
            kind = "a folder" if stat.S_ISDIR(found) else "not a regular file"
            raise InputError(f"{path}: cannot be written because it is {kind}; choose another path")
        with open(temporary, "wb" if temporary_name else "xb") as file:
            mode = os.fstat(file.fileno()).st_mode
        yield temporary
        if _mode(temporary) != mode:  # some writers put a file of their own in the place, readable to nobody else
            os.chmod(temporary, stat.S_IMODE(mode))
        _flush(temporary)


def write_json(
    path: str | os.PathLike[str], content: Any, indent: int = 2, temporary_name: str | None = None, **options: Any
) -> None:
    """Writes `content` as `atomic_file` does; `options` are those of `json.dumps`."""
    with atomic_file(path, temporary_name) as temporary:
        temporary.write_text(json.dumps(content, indent=indent, **options) + "\n")


@contextlib.contextmanager
def atomic_directory(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary folder to fill; it becomes `path` when the body ends well.

    Missing parent folders are made. An empty folder at `path` is taken over.

    Raises:
      InputError: if `path` is a file or a folder with content, or the disk or the permissions forbid it.
    """
    target = local_target(path)
    with _staged(path, target) as temporary:
        found = _mode(target)
        if found is not None and not stat.S_ISDIR(found):
            raise InputError(
                f"{path}: expected a new folder, but a file stands there; choose another --out or remove it"
            )
        if found is not None and os.listdir(target):
            raise InputError(f"{path}: the folder exists and is not empty; choose another --out or remove it")
        os.mkdir(temporary)
        yield temporary
        for folder, _, files in os.walk(temporary):
            for name in files:
                _flush(Path(folder, name))
            _flush_folder(Path(folder))


@contextlib.contextmanager
def _staged(path: str | os.PathLike[str], target: Path, temporary_name: str | None = None) -> Iterator[Path]:
    """Makes the folders above `target`, and moves there what the body wrote; a failure leaves neither."""
    # The name is short and hidden: a long target name must not overflow, and a glob must not find it.
    temporary = target.parent / (temporary_name or f".{uuid.uuid4().hex}.tmp")
    made: list[Path] = []
    try:
        _make_parents(target, made)
        yield temporary
        os.replace(temporary, target)
    except BaseException as error:
        _remove(temporary)
        for folder in reversed(made):
            with contextlib.suppress(OSError):  # somebody else has put something there meanwhile
                os.rmdir(folder)
        if isinstance(error, OSError) and is_about(error, target, temporary):
            raise unwritable(path, error) from error
        raise
    _flush_folder(target.parent)


def unwritable(path: str | os.PathLike[str], error: OSError) -> InputError:
    """The sentence for a file or folder that the system did not let us write."""
    remedy = "free some space or choose another place" if error.errno in _FULL else "choose a place you may write to"
    return InputError(f"{path}: cannot be written ({error.strerror or error}); {remedy}")


_REMEDIES = (
    (_FULL, "free some space"),
    ({errno.EACCES, errno.EPERM, errno.EROFS}, "let this user write there"),
    ({errno.ENOENT, errno.EEXIST, errno.ENOTDIR}, "let nobody else move, remove or make files there meanwhile"),
)


def writing_failure(error: BaseException) -> tuple[str, str]:
    """The system's words for an error of writing, or "", and a remedy; a library's error may only quote them."""
    for codes, remedy in _REMEDIES:
        for code in codes:
            if getattr(error, "errno", None) == code or os.strerror(code) in str(error):
                return os.strerror(code), remedy
    return "", "see to the disk"


def is_about(error: OSError, target: Path, temporary: Path) -> bool:
    """Whether the error came from our writing, and not from another file that the body was reading."""
    if error.filename is None:
        return error.errno in _WRITING
    if not isinstance(error.filename, (str, os.PathLike)):
        return False
    named = Path(os.path.abspath(error.filename))
    return named.is_relative_to(temporary) or target.is_relative_to(named)


def _mode(target: Path) -> int | None:
    try:
        return os.stat(target).st_mode
    except FileNotFoundError:
        return None


def _make_parents(target: Path, made: list[Path]) -> None:
    """Makes the missing folders above `target`, noting each new one in `made`, outermost first."""
    missing = itertools.takewhile(lambda folder: _mode(folder) is None, target.parents)
    for new in reversed(list(missing)):
        with contextlib.suppress(FileExistsError):  # another process was faster, so it is not ours to remove
            os.mkdir(new)
            made.append(new)


def _remove(temporary: Path) -> None:
    if temporary.is_dir():
        shutil.rmtree(temporary, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def _flush(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(folder: Path) -> None:
    # Some file systems cannot flush a folder; the content is safe already, only the name might be late.
    with contextlib.suppress(OSError):
        _flush(folder)
