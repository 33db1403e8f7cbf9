"""Profiles a window of steps with JAX's profiler."""

from __future__ import annotations

import contextlib
import re
import tempfile
from typing import Any

import jax
from etils import epath

from var_jax.errors import InputError
from var_jax.formats.bucket import in_bucket

PROFILE = "profile"


class Window:
    """Steps FIRST to LAST of the training, profiled in the first process.

    The trace is written to `profile/` in the training directory; `xprof DIR/profile` opens it (pip install xprof).

    Args:
      text: "FIRST:LAST", or None for no window.
      workdir: the training directory.

    Raises:
      InputError: for any other text.
    """

    def __init__(self, text: str | None, workdir: epath.Path) -> None:
        self._steps, self._workdir = range(0), workdir
        if text is not None:
            found = re.fullmatch(r"(\d+):(\d+)", text)
            if not found or not 1 <= int(found[1]) <= int(found[2]):
                raise InputError(f"profile '{text}': expected FIRST:LAST, two steps from 1 on, such as 20:25")
            self._steps = range(int(found[1]), int(found[2]) + 1)
        self._tracing, self._opened = False, contextlib.ExitStack()

    def before(self, step: int) -> None:
        """Starts the trace if `step` is in the window."""
        if step in self._steps and not self._tracing and jax.process_index() == 0:
            folder = self._workdir / PROFILE
            if in_bucket(folder):  # the profiler itself writes to local disks only
                folder = epath.Path(self._opened.enter_context(tempfile.TemporaryDirectory()))
                self._opened.callback(self._copy, folder)
            jax.profiler.start_trace(str(folder))
            self._opened.callback(jax.profiler.stop_trace)
            self._tracing = True

    def after(self, step: int, result: Any) -> None:
        """Ends the trace after the window's last step, once its `result` is there."""
        if self._tracing and step >= self._steps[-1]:
            jax.block_until_ready(result)
            self.close()

    def close(self) -> None:
        """Ends a running trace and copies it into the training directory."""
        self._tracing = False
        self._opened.close()

    def _copy(self, folder: epath.Path) -> None:
        for file in folder.rglob("*"):
            if file.is_file():
                file.copy(self._workdir / PROFILE / str(file.relative_to(folder)), overwrite=True)
