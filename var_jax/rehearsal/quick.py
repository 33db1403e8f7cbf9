"""Stops the TPU compiler once it knows the program and its memory: machine code takes ten times as long as all before.

The compiler writes down what it has decided (XLA's dump) before it generates code, and there is no telling it to end
there. So it works in a process of its own, which is ended when that has been read.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import re
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

from var_jax.errors import InputError

_LAST = "after_optimizations_after_buffer_assignment.txt"
_BUFFERS = "after_optimizations-buffer-assignment.txt"


def planned(program: Callable[[], jax.stages.Lowered]) -> tuple[str, str]:
    """The text of a program as the TPU compiler would generate code for, and its list of buffers.

    Args:
      program: what lowers it; to be pickled.

    Raises:
      InputError: what `program` raises.
      RuntimeError: what the compiler says where it fails.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        child = context.Process(target=_compile, args=(program, theirs), daemon=True)
        with _flags(f"--xla_dump_to={folder} --xla_dump_hlo_as_text"):
            child.start()
        theirs.close()
        try:
            return _wait(Path(folder), ours)
        finally:
            child.kill()
            child.join()


def _wait(folder: Path, child: multiprocessing.connection.Connection) -> tuple[str, str]:
    """What the compiler has written down, as soon as it is whole; or what has gone wrong."""
    while True:
        done = child.poll(0.3)
        for last in folder.glob(f"*.{_LAST}"):  # the CPU's, if any, are called "cpu_after_..."
            text = last.read_text()
            if text.rstrip().endswith("}"):
                return text, last.with_name(last.name.replace(_LAST, _BUFFERS)).read_text()
        if done:
            kind, message = child.recv()
            raise InputError(message) if kind == "input" else RuntimeError(message)


def _compile(program: Callable[[], jax.stages.Lowered], out: multiprocessing.connection.Connection) -> None:
    jax.config.update("jax_enable_compilation_cache", False)  # what is found there is not written down
    try:
        program().compile()
        out.send(("bug", "the compiler has finished and written nothing down"))
    except InputError as error:
        out.send(("input", str(error)))
    except Exception:  # whatever it is, the other process raises it
        out.send(("compiler", traceback.format_exc()))


@contextlib.contextmanager
def _flags(more: str) -> Iterator[None]:
    """XLA's flags for processes that are started meanwhile."""
    before = os.environ.get("XLA_FLAGS")
    os.environ["XLA_FLAGS"] = f"{before or ''} {more}"
    try:
        yield
    finally:
        if before is None:
            del os.environ["XLA_FLAGS"]
        else:
            os.environ["XLA_FLAGS"] = before


def buffer_sizes(buffers: str) -> dict[str, int]:
    """Bytes of HBM by kind from a list of buffers: "arguments", "outputs" that lie in no argument, "temporaries"."""
    sizes = {"arguments": 0, "outputs": 0, "temporaries": 0}
    for size, rest in re.findall(r"^allocation \d+: size (\d+)(.*):$", buffers, re.MULTILINE):
        if "color" in rest or "thread-local" in rest:
            continue  # not HBM, or a number within a fusion
        kind = "arguments" if "parameter" in rest else "outputs" if "maybe-live-out" in rest else "temporaries"
        sizes[kind] += int(size)
    return sizes
