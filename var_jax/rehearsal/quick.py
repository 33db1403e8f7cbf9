"""Stops the TPU compiler once it knows the program and its memory, since machine code takes ten times as long.

The compiler writes its decisions to a file (XLA's dump) before it generates code, and has no option to end there. So
it runs in a process of its own, which is killed when the file has been read.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import re
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import jax

from var_jax.errors import InputError

_LAST = "after_optimizations_after_buffer_assignment.txt"
_BUFFERS = "after_optimizations-buffer-assignment.txt"


def planned(program: Callable[[], jax.stages.Lowered]) -> tuple[str, str]:
    """The text of a program for which the TPU compiler would generate code, and its list of buffers.

    Args:
      program: lowers the program; must be picklable.

    Raises:
      InputError: if `program` raises it.
      RuntimeError: if the compiler fails, with its message.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        child = context.Process(target=_compile, args=(program, folder, theirs), daemon=True)
        child.start()
        theirs.close()
        try:
            return _wait(Path(folder), ours)
        finally:
            child.kill()
            child.join()


def _wait(folder: Path, child: multiprocessing.connection.Connection) -> tuple[str, str]:
    """Waits for the compiler's dump and returns it once complete; raises the child's error if it fails."""
    while True:
        done = child.poll(0.3)
        for last in folder.glob(f"*.{_LAST}"):  # a CPU program's dump, if any, is called "cpu_after_..."
            text = last.read_text()
            if text.rstrip().endswith("}"):
                return text, last.with_name(last.name.replace(_LAST, _BUFFERS)).read_text()
        if done:
            kind, message = child.recv()
            raise InputError(message) if kind == "input" else RuntimeError(message)


def _compile(
    program: Callable[[], jax.stages.Lowered], folder: str, out: multiprocessing.connection.Connection
) -> None:
    dump = f"--xla_dump_to={folder} --xla_dump_hlo_as_text"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {dump}"  # read when JAX starts its backends
    jax.config.update("jax_enable_compilation_cache", False)  # a program found there is not dumped
    try:
        program().compile()
        out.send(("bug", "the compiler has finished without a dump"))
    except InputError as error:
        out.send(("input", str(error)))
    except Exception:  # any other error is raised in the parent process
        out.send(("compiler", traceback.format_exc()))


def buffer_sizes(buffers: str) -> dict[str, int]:
    """Bytes of HBM by kind from a list of buffers: "arguments", "outputs" not in an argument's place, "temporaries"."""
    sizes = {"arguments": 0, "outputs": 0, "temporaries": 0}
    for size, rest in re.findall(r"^allocation \d+: size (\d+)(.*):$", buffers, re.MULTILINE):
        if "color" in rest or "thread-local" in rest:
            continue  # not HBM, or a number within a fusion
        kind = "arguments" if "parameter" in rest else "outputs" if "maybe-live-out" in rest else "temporaries"
        sizes[kind] += int(size)
    return sizes
