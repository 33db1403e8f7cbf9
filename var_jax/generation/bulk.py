"""Tens of thousands of pictures into a folder or an .npz, to be judged: resumed after a kill, always in the same order.

The order is shuffled, and fixed by class and index alone. Evaluators compute the Inception Score over parts of
the file in turn, which is far too low where the file goes class by class.

A folder holds one PNG per picture, `00017_class3_0001.png` for the second picture of class 3 at place 17. An .npz has
the layout of the common evaluator: `arr_0` uint8 [N, H, W, 3], and `arr_1` int64 [N], the classes. Both record the
settings of their pictures in `settings`, and never mix them with pictures of other settings.

Several processes, on one machine or on several that see the same files, share the work: each has its stretch of the
order, and the first one finishes the target once no picture is missing. Pictures do not depend on the process that
drew them.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import fcntl
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
from PIL import Image

from var_jax.errors import InputError
from var_jax.formats.atomic import atomic_file, local_target, unwritable
from var_jax.formats.small_files import parse_json, read_arrays, read_json
from var_jax.generation.batching import batches, class_keys
from var_jax.parallel.processes import at

SETTINGS_FILE = "settings.json"
_LOCK_FILE = ".lock.tmp"  # a name that `finish` removes
_SECONDS_BETWEEN_LINES = 5.0
_SECONDS_BETWEEN_LOOKS = 1.0  # at the pictures of other processes

Draw = Callable[[np.ndarray, jax.Array], np.ndarray]  # labels [B], keys [B] -> uint8 [B, H, W, 3]


def shuffled(classes: Sequence[int], per_class: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels [N] and indices within the class [N], in the order of a hash of both."""
    pairs = [(label, index) for label in classes for index in range(per_class)]
    pairs.sort(key=lambda pair: hashlib.sha256(f"{pair[0]} {pair[1]}".encode()).digest())
    labels_N, indices_N = np.asarray(pairs, np.int64).reshape(-1, 2).T
    return labels_N, indices_N


class Target(Protocol):
    """Where pictures go, by their place in the order."""

    def missing(self) -> np.ndarray:
        """Places that have no picture yet."""

    def write(self, places: np.ndarray, images: np.ndarray) -> None:
        """Puts pictures in their places; each is there whole or not at all, whenever the process dies."""

    def held(self) -> contextlib.AbstractContextManager[None]:
        """Keeps other commands from the same place; for the first process of each."""

    def finish(self) -> None:
        """To be called once nothing is missing."""


class PngFolder:
    """One file per picture."""

    def __init__(self, path: Path, labels_N: np.ndarray, indices_N: np.ndarray, settings: Mapping[str, Any]) -> None:
        """Opens the folder, or makes it.

        Raises:
          InputError: if it holds anything but pictures of the same settings, or cannot be written.
        """
        self._folder, digits = Path(path), max(5, len(str(len(labels_N) - 1)))
        self._names = [
            f"{place:0{digits}d}_class{label}_{index:04d}.png"
            for place, (label, index) in enumerate(zip(labels_N, indices_N, strict=True))
        ]
        _same_settings(self._folder, settings)

    def missing(self) -> np.ndarray:
        there = {file.name for file in self._folder.iterdir()}
        return np.flatnonzero([name not in there for name in self._names])

    def write(self, places: np.ndarray, images: np.ndarray) -> None:
        def save(place: int, image: np.ndarray) -> None:
            name = self._names[place]
            with atomic_file(self._folder / name, f".{name}.tmp") as temporary:
                Image.fromarray(image).save(temporary, format="PNG")

        with concurrent.futures.ThreadPoolExecutor() as pool:  # compressing releases the interpreter lock
            list(pool.map(save, places, images))

    def held(self) -> contextlib.AbstractContextManager[None]:
        return _held(self._folder, self._folder)

    def finish(self) -> None:
        for left in self._folder.glob(".*.tmp"):  # of a process that was killed
            left.unlink()


class NpzFile:
    """All pictures in one file; until all are there, in a folder `FILE.part` beside it."""

    def __init__(self, path: Path, labels_N: np.ndarray, size: int, settings: Mapping[str, Any]) -> None:
        """Opens the file or its parts, or begins them.

        Raises:
          InputError: if the file or its parts hold anything but pictures of the same settings.
        """
        self._path, self._labels_N, self._settings = Path(path), labels_N, dict(settings)
        self._part = Path(f"{local_target(path)}.part")
        if self._path.exists():
            _refuse_others(self._path, _settings_of_npz(self._path), settings)
            return
        _same_settings(self._part, settings)
        self._images = _Rows(self._part / "pictures", (len(labels_N), size, size, 3))
        self._done = _Rows(self._part / "done", (len(labels_N), 1))

    def missing(self) -> np.ndarray:
        if self._path.exists():
            return np.empty(0, np.int64)
        try:
            return np.flatnonzero(self._done.read()[:, 0] == 0)
        except FileNotFoundError:
            if self._path.exists():  # the first process has just finished
                return np.empty(0, np.int64)
            raise

    def write(self, places: np.ndarray, images: np.ndarray) -> None:
        self._images.write(places, images)  # on the disk before they are called done
        self._done.write(places, np.ones((len(places), 1), np.uint8))

    def held(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self._path.exists() else _held(self._part, self._path)

    def finish(self) -> None:
        if not self._path.exists():
            text = np.asarray(json.dumps(self._settings, sort_keys=True))
            with atomic_file(self._path) as temporary, open(temporary, "wb") as file:
                np.savez(file, arr_0=self._images.read(), arr_1=self._labels_N, settings=text)
        shutil.rmtree(self._part, ignore_errors=True)


@contextlib.contextmanager
def _held(folder: Path, path: Path) -> Iterator[None]:
    """Holds a lock in `folder` while the body runs; a file system that has no locks cannot keep others out."""
    with _writing(path):
        file = open(folder / _LOCK_FILE, "ab")  # noqa: SIM115, closed below: errors of the body are not ours
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{path}: another command is drawing these pictures; wait for its end, or choose another --out"
            ) from None
        except OSError:
            pass
        yield


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from error


class _Rows:
    """A file of uint8 rows, zeros until written; whoever opens it first makes it, at once with others or not.

    Rows are written as bytes to their places, not through mapped pages: those are coherent on one machine only.
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self._path, self._shape = path, shape
        length = math.prod(shape)
        with _writing(path), open(path, "ab") as file:
            if path.stat().st_size == 0:
                file.truncate(length)
        if path.stat().st_size != length:
            raise InputError(f"{path}: holds pictures of another size or number; remove the folder it is in")

    def read(self) -> np.ndarray:
        return np.memmap(self._path, np.uint8, "r", shape=self._shape)

    def write(self, places: np.ndarray, rows: np.ndarray) -> None:
        with _writing(self._path), open(self._path, "r+b") as file:
            for place, row in zip(places, rows, strict=True):
                file.seek(int(place) * row.nbytes)
                file.write(np.ascontiguousarray(row, np.uint8).data)
            file.flush()
            os.fsync(file.fileno())


def _same_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Makes the folder and records the settings in it, or checks that they are those recorded."""
    file, target = folder / SETTINGS_FILE, local_target(folder)
    if target.exists() and not target.is_dir():
        raise InputError(f"{folder}: is a file, expected a folder for the pictures; choose another --out")
    # Looked for before the settings: another process may begin just now, and writes those first.
    strangers = target.exists() and any(not name.name.startswith(".") for name in target.iterdir())
    if file.exists():
        return _refuse_others(folder, read_json(file, "the settings of pictures", "choose another --out"), settings)
    if strangers:
        raise InputError(f"{folder}: holds other files and no {SETTINGS_FILE}; choose another --out")
    with atomic_file(file, f".{SETTINGS_FILE}.{os.getpid()}.tmp") as temporary:
        temporary.write_text(json.dumps(dict(settings), indent=2, sort_keys=True) + "\n")


def _settings_of_npz(path: Path) -> dict[str, Any]:
    try:
        text = str(read_arrays(path, "pictures", ("settings",))["settings"])
        return parse_json(text, path, "the settings of pictures")
    except InputError:
        raise InputError(f"{path}: exists and holds something else; choose another --out or remove it") from None


def _refuse_others(path: Path, found: dict[str, Any], settings: Mapping[str, Any]) -> None:
    wanted = json.loads(json.dumps(dict(settings)))  # tuples are lists there
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            a, b = (str(settings.get(name))[:60] for settings in (found, wanted))
            raise InputError(f"{path}: holds pictures with {name} {a}, not {b}; choose another --out or remove it")


def draw_all(
    draw: Draw,
    target: Target,
    labels_N: np.ndarray,
    indices_N: np.ndarray,
    seed: int,
    batch: int,
    process: int = 0,
    processes: int = 1,
) -> None:
    """Draws the missing pictures, with a line on the progress every few seconds.

    Args:
      draw: the model; is always called with `batch` rows, so that one program serves all batches.
      target: where pictures go.
      labels_N, indices_N: see `shuffled`.
      seed: a picture follows from seed, class and index.
      batch: rows.
      process, processes: which of how many this is; each returns once all is drawn and the first has finished.
    """
    with target.held() if process == 0 else contextlib.nullcontext():
        mine = np.array_split(np.arange(len(labels_N)), processes)[process]
        missing, started, said = np.intersect1d(target.missing(), mine), time.monotonic(), 0.0
        total, before = len(mine), len(mine) - len(missing)
        if before:
            print(f"{before}/{total} pictures are there already", flush=True)
        for rows, new in batches(len(missing), batch, fill=True) if len(missing) else ():
            places = missing[rows]
            at("drawing", before + int(rows[0]))
            images = draw(labels_N[places], class_keys(seed, labels_N[places], indices_N[places]))
            target.write(places[:new], images[:new])
            done = before + int(rows[new - 1]) + 1
            spent = time.monotonic() - started
            if done == total or spent - said > _SECONDS_BETWEEN_LINES:
                left, said = spent / (done - before) * (total - done), spent
                print(f"{done}/{total} pictures, {spent:.0f} s, about {left:.0f} s left", flush=True)
        at("waiting", total)
        while len(target.missing()):  # those of other processes
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        if process == 0:
            target.finish()
