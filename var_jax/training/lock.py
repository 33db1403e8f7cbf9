"""Allows one run per directory, by the operating system's lock on a file, which is released when a process dies."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator

from etils import epath

from var_jax.errors import InputError
from var_jax.formats.bucket import in_bucket

LOCK_FILE = "lock"


@contextlib.contextmanager
def held(workdir: epath.Path) -> Iterator[str | None]:
    """Keeps other runs out of `workdir` while the body runs.

    Yields:
      The last holder if it ended without releasing the lock (because it was killed, say), or None. A bucket, and a
      file system without locks, cannot keep other runs out.

    Raises:
      InputError: naming host and process, if a living run uses the directory.
    """
    if in_bucket(workdir):
        yield None
        return
    with open(workdir / LOCK_FILE, "a+", encoding="utf-8", errors="replace") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(file.seek(0) or file.read())
            raise InputError(
                f"{workdir}: is in use by a living run ({holder}): wait for its end, stop it, or choose another "
                "--workdir"
            ) from None
        except OSError:  # some network file systems have no locks
            yield None
            return
        before = file.seek(0) or file.read()
        _write(file, {"host": socket.gethostname(), "process": os.getpid(), "since": time.strftime("%F %T")})
        try:
            yield _holder(before) if before.strip() else None
        finally:
            _write(file, None)


def _write(file: object, content: dict[str, object] | None) -> None:
    with contextlib.suppress(OSError):  # on a full disk the lock works without its text
        file.truncate(0)
        file.write("" if content is None else json.dumps(content) + "\n")
        file.flush()


def _holder(text: str) -> str:
    try:
        content = json.loads(text)
        return f"process {content['process']} on {content['host']} since {content['since']}"
    except (ValueError, KeyError, TypeError, RecursionError):
        return "whose process is unknown"
