"""Runs the models of a sweep one after another, or writes one job per model.

A sweep is a config file that has `get_sweep(argument)` beside `get_config(argument)`: points (see `algebra`) that
change the config. Each model is an ordinary `var-jax train` in a process and directory of its own, so it resumes as
any run does, and a failing one does not affect the others.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from var_jax.errors import InputError
from var_jax.formats.atomic import atomic_file, local_target
from var_jax.scaling.algebra import NAME, Point, checked, overrides
from var_jax.scaling.gather import is_finished
from var_jax.training.config import config_module, load_config, split_name
from var_jax.training.loop import PREEMPTED
from var_jax.training.reporting import duration

# `var-jax` in a child that Linux kills with its parent, or else a second try would find the directory in use.
_CHILD = """
import ctypes, signal, sys
if sys.platform == "linux":
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
from var_jax.cli.main import main
sys.exit(main())
"""


def load_sweep(name: str, changes: Sequence[str] = ()) -> list[Point]:
    """Loads the points of a sweep; each must make a valid config.

    Args:
      name: name of a config with a sweep, in the package or a Python file, optionally with an argument after a colon.
      changes: "--config.key=value" for every point.

    Raises:
      InputError: if there is no such sweep, or a point changes a key that the config lacks.
    """
    base, argument = split_name(name)
    module = config_module(base)
    if not hasattr(module, "get_sweep"):
        raise InputError(f"config {base}: has no get_sweep(argument), it is one model and no sweep")
    try:
        points = checked(module.get_sweep(argument))
    except KeyError:
        raise InputError(f"config {base}: has no variant '{argument}' (see the text on top of it)") from None
    for point in points:
        load_config(name, [*overrides(point), *changes])
    return points


def train_command(config: str, workdir: str | Path, changes: Point, more: Sequence[str] = ()) -> list[str]:
    """The arguments of `var-jax` that train a config with these changes, and more of them as words."""
    return ["train", "--config", config, "--workdir", str(workdir), *overrides(changes), *more]


def run_sweep(
    sweep: str,
    out: str | os.PathLike[str],
    changes: Sequence[str] = (),
    only: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> int:
    """Trains every model that has not finished; the same call resumes where the previous one stopped.

    Args:
      sweep, changes: see `load_sweep`.
      out: the folder of the models' directories.
      only: names of points; none means all.

    Returns:
      The exit code: 0 if all have finished, 1 if some failed, 75 if stopped by SIGTERM.

    Raises:
      InputError: for an unknown sweep or point.
    """
    out = local_target(out)
    points = _chosen(load_sweep(sweep, changes), only, sweep)
    failed = []
    for number, point in enumerate(points, 1):
        head = f"[{number}/{len(points)}] {point[NAME]}"
        if is_finished(out / point[NAME]):
            say(f"{head}: has finished before")
            continue
        say(f"{head}: {' '.join(overrides(point))}")
        begun = time.monotonic()
        code = trained(train_command(sweep, out / point[NAME], point, changes))
        if code == PREEMPTED:
            say(f"{head}: stopped; the same command goes on from here")
            return PREEMPTED
        if code:
            failed.append(point[NAME])
        result = f"failed with exit code {code}, see {out / point[NAME]}" if code else "finished"
        say(f"{head}: {result}, {duration(time.monotonic() - begun)}")
    if failed:
        say(f"{len(failed)} of {len(points)} models failed: {', '.join(failed)}; the same command tries them again")
    return 1 if failed else 0


def _chosen(points: list[Point], only: Sequence[str], sweep: str) -> list[Point]:
    names = [point[NAME] for point in points]
    if unknown := [name for name in only if name not in names]:
        raise InputError(f"sweep {sweep}: has no point '{unknown[0]}', they are {', '.join(names)}")
    return [point for point in points if not only or point[NAME] in only]


def trained(words: Sequence[str]) -> int:
    """Runs one training in a process of its own, which gets this one's SIGTERM and does not outlive it."""
    process = subprocess.Popen([sys.executable, "-c", _CHILD, *words])
    before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        return process.wait()
    finally:
        signal.signal(signal.SIGTERM, before)
        if process.poll() is None:  # an interrupt from the keyboard
            process.terminate()
            process.wait()


_JOB = """#!/usr/bin/env bash
# Trains one model of the sweep {sweep}; run again, it goes on where it stopped.
set -euo pipefail
exec {command}
"""


def write_jobs(
    sweep: str, out: str, jobs: str | os.PathLike[str], changes: Sequence[str] = (), only: Sequence[str] = ()
) -> list[Path]:
    """Writes one shell script per model, for a cluster's queue; `out` goes into them as it is, a bucket for example.

    Returns:
      The scripts' paths.

    Raises:
      InputError: as `run_sweep`.
    """
    written = []
    for point in _chosen(load_sweep(sweep, changes), only, sweep):
        words = train_command(sweep, f"{out.rstrip('/')}/{point[NAME]}", point, changes)
        file = local_target(jobs) / f"{point[NAME]}.sh"
        with atomic_file(file) as temporary:
            temporary.write_text(_JOB.format(sweep=sweep, command=shlex.join(["var-jax", *words])))
        file.chmod(0o755)
        written.append(file)
    return written
