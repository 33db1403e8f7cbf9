"""Sources of pictures to judge: an `.npz` as the published evaluator reads it, a folder, or a model.

Each source knows its number of pictures and their fixed order, and yields them batch by batch from any position on:
no source is ever in memory as a whole.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import types
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from var_jax.bundle import load
from var_jax.data.files import SUFFIXES, Aside, find_pictures
from var_jax.data.images import read_header, read_image
from var_jax.errors import InputError
from var_jax.evaluation.expected import PUBLISHED_SAMPLING
from var_jax.formats.bucket import in_bucket
from var_jax.formats.small_files import Header, open_arrays
from var_jax.generation.batching import batches, class_keys
from var_jax.generation.bulk import shuffled
from var_jax.generation.pictures import to_uint8
from var_jax.model_directory import CONFIG_FILE
from var_jax.parallel.mesh import make_mesh
from var_jax.training_directory import RUN_FILE

ARRAY = "arr_0"
_EXPECTED = "an .npz, a folder of pictures or a model directory"
_LOSSY = (".jpg", ".jpeg", ".webp")
_LEADING, _TRAILING = re.compile(r"\d+"), re.compile(r"(.*?)(\d+)$")


class Pictures(Protocol):
    """A sequence of pictures of one size.

    Attributes:
      name: the name in messages.
      count: number of pictures.
    """

    name: str
    count: int

    def identity(self) -> str:
        """A text that changes when a picture does; features on disk are stored under it."""

    def batches(self, start: int, size: int) -> Iterator[np.ndarray]:
        """The pictures from `start` on as uint8 [size, H, W, 3]; the last batch may be smaller."""

    def notes(self) -> list[str]:
        """Notes for the reader of figures, one sentence each; complete when all pictures have been read."""
        return []


class NpzPictures(Pictures):
    """The array `arr_0`, uint8 [N, H, W, 3], of an `.npz`, streamed out of the archive whether compressed or not.

    Raises:
      InputError: if the file is no such archive, or the array has another type or layout.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = os.fspath(path)
        with open_arrays(path, _EXPECTED) as archive:
            if ARRAY not in archive.names:
                raise InputError(f"{path}: holds no pictures, it has no array called {ARRAY}")
            self._checksum = archive.checksum(ARRAY)
            with archive.open(ARRAY) as (header, _):
                _check_layout(path, header)
        self.count, self._shape = header.shape[0], header.shape[1:]

    def identity(self) -> str:
        """Made from the archive's own checksum of the array."""
        return f"npz {self.count} {self._shape} {self._checksum:08x}"

    def batches(self, start: int, size: int) -> Iterator[np.ndarray]:
        """See `Pictures`; pictures before `start` are skipped."""
        bytes_each = int(np.prod(self._shape))
        with open_arrays(self.name, _EXPECTED) as archive, archive.open(ARRAY) as (_, file):
            file.seek(start * bytes_each, os.SEEK_CUR)
            for at in range(start, self.count, size):
                count = min(size, self.count - at)
                yield np.frombuffer(file.read(count * bytes_each), np.uint8).reshape(count, *self._shape)


def _check_layout(path: str | os.PathLike[str], header: Header) -> None:
    shape, fortran, kind = header
    problem = f"{path}: {ARRAY} is {kind} {shape}, expected uint8 [N, H, W, 3]"
    if kind != np.uint8:
        raise InputError(
            f"{problem}; make bytes of it as published figures do, (255 * x).astype(np.uint8) for x in 0..1"
        )
    if len(shape) == 4 and shape[1] == 3 != shape[3]:
        raise InputError(f"{problem}; the channels are in front, give arr_0.transpose(0, 2, 3, 1)")
    if len(shape) != 4 or shape[3] != 3 or 0 in shape:
        raise InputError(f"{problem}; give colour pictures of one size")
    if fortran:
        raise InputError(f"{problem} in C order; save np.ascontiguousarray(arr_0)")


class FolderPictures(Pictures):
    """All pictures in a folder and its sub-folders, in the order of their paths; see `var_jax.data.files`.

    Raises:
      InputError: if the folder has no pictures, one differs in size from the first, or one cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name, self._root = os.fspath(path), Path(path)
        aside = Aside(path)
        self._files = find_pictures(path, aside)
        self._aside = aside.lines()
        if not self._files:
            raise InputError(f"{path}: holds no pictures (read are {' '.join(SUFFIXES)}), and is no model directory")
        self.count = len(self._files)
        self._modes = _survey([self._root / file for file in self._files])

    def identity(self) -> str:
        """Made from names, sizes and times of the files."""
        stats = ((str(file), (self._root / file).stat()) for file in self._files)
        lines = "\n".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats)
        return f"folder {self.count} {hashlib.sha256(lines.encode('utf-8', 'surrogateescape')).hexdigest()}"

    def batches(self, start: int, size: int) -> Iterator[np.ndarray]:
        """See `Pictures`."""
        for at in range(start, self.count, size):
            files = (self._root / self._files[index] for index in range(at, min(at + size, self.count)))
            yield np.stack([np.asarray(read_image(file), np.uint8) for file in files])

    def notes(self) -> list[str]:
        """Notes on files that were left aside, missing numbers, lossy files, and pictures that were not RGB."""
        notes = [*self._aside, *_gaps(self._root, self._files)]
        if lossy := sum(file.suffix.lower() in _LOSSY for file in self._files):
            notes.append(f"{lossy} of {self.count} pictures are in a lossy format, published figures use PNG files")
        if self._modes:
            modes = ", ".join(f"{count} {mode}" for mode, count in sorted(self._modes.items()))
            notes.append(
                f"{sum(self._modes.values())} of {self.count} pictures are not RGB ({modes}) and were converted, "
                "transparent ones onto white"
            )
        return notes


def _survey(files: list[Path]) -> Counter[str]:
    """Counts pictures by mode, RGB left out, from the files' headers; raises if sizes differ."""
    modes, first = Counter(), None
    for file in files:
        mode, size = read_header(file)
        modes[mode] += 1
        first = first or size
        if size != first:
            shown = [f"{width} x {height}" for width, height in (size, first)]
            raise InputError(f"{file}: is {shown[0]} pixels, {files[0]} is {shown[1]}; give pictures of one size")
    modes.pop("RGB", None)
    return modes


def _gaps(root: Path, files: list[Path]) -> list[str]:
    """Notes on numbers missing in numbered files: a lost picture, or samples of a process that died."""
    stems: dict[Path, list[str]] = {}
    for file in files:
        stems.setdefault(file.parent, []).append(file.stem)
    notes = []
    for folder, names in stems.items():
        for prefix, found in _rows(names).items():
            missing = max(found) - min(found) + 1 - len(found)
            # Only if fewer are missing than present: names that merely contain numbers are not numbered.
            if 0 < missing <= len(found):
                first = next(n for n in range(min(found), max(found)) if n not in found)
                notes.append(
                    f"{missing} pictures seem to be missing, the first is number {first} of {root / folder}/{prefix}*"
                )
    return notes


def _rows(names: list[str]) -> dict[str, set[int]]:
    """The numbers that names start with, if all differ; else the numbers at their ends, by the prefix before."""
    leading = [match for name in names if (match := _LEADING.match(name))]
    if len({int(match[0]) for match in leading}) == len(names):
        return {"": {int(match[0]) for match in leading}}
    rows: dict[str, set[int]] = {}
    for match in filter(None, map(_TRAILING.match, names)):
        rows.setdefault(match[1], set()).add(int(match[2]))
    return rows


class Drawing(NamedTuple):
    """Settings for drawing a model's samples; the defaults are those of the published figures.

    Attributes:
      per_class: pictures per class.
      seed: a picture depends on seed, class and index alone.
      batch: pictures at a time, rounded up to a multiple of the devices.
      settings: sampling settings, as `Bundle.generate` takes them.
    """

    per_class: int = 50
    seed: int = 0
    batch: int = 32
    settings: Mapping[str, Any] = types.MappingProxyType(dataclasses.asdict(PUBLISHED_SAMPLING))


class ModelPictures(Pictures):
    """Samples of a model, drawn on all devices when they are needed.

    They equal the pictures that `var-jax sample` writes to an .npz, in the same shuffled order; each has a key of its
    own and does not depend on its batch. Floats become bytes by truncation, as in published figures.

    Raises:
      InputError: if the directory holds no model that can be sampled.
    """

    def __init__(self, path: str | os.PathLike[str], drawing: Drawing) -> None:
        if drawing.per_class < 1 or drawing.batch < 1:
            raise InputError(f"{drawing.per_class} pictures per class, {drawing.batch} at a time: expected 1 or more")
        bundle = load(path)
        if bundle.transformer is None:
            raise InputError(f"{path}: has a tokenizer only, import a transformer with it to sample")
        self.name, self._drawing = os.fspath(path), drawing
        self._classes = bundle.transformer.config.num_classes
        mesh = make_mesh(devices=jax.local_devices())
        self._bundle, self._batch = bundle.over(mesh), -(-drawing.batch // mesh.size) * mesh.size
        self._labels_N, self._indices_N = shuffled(range(self._classes), drawing.per_class)
        self.count = len(self._labels_N)

    def identity(self) -> str:
        """Made from weights and settings."""
        values = {"per_class": self._drawing.per_class, "seed": self._drawing.seed, **self._drawing.settings}
        values |= {"model": self._bundle.fingerprints, "type": np.dtype(self._bundle.transformer.module.dtype).name}
        return f"model {json.dumps(values, sort_keys=True)}"

    def batches(self, start: int, size: int) -> Iterator[np.ndarray]:
        """See `Pictures`."""
        held: list[np.ndarray] = []
        for rows, new in batches(self.count - start, self._batch, fill=True):
            labels, indices = self._labels_N[start + rows], self._indices_N[start + rows]
            keys = class_keys(self._drawing.seed, labels, indices)
            held.extend(to_uint8(self._bundle.generate(labels, keys, **self._drawing.settings))[:new])
            while len(held) >= size:
                yield np.stack(held[:size])
                del held[:size]
        if held:
            yield np.stack(held)

    def notes(self) -> list[str]:
        """A note on the settings of drawing."""
        settings = ", ".join(f"{name} {value}" for name, value in self._drawing.settings.items())
        return [
            f"drawn here: {self._drawing.per_class} pictures of each of {self._classes} classes, {settings}, seed "
            f"{self._drawing.seed}"
        ]


def open_pictures(path: str | os.PathLike[str], drawing: Drawing | None = None) -> Pictures:
    """Opens the source at a path: an `.npz`, a folder of pictures, or (given `drawing`) a model to sample.

    Raises:
      InputError: if the path is none of these.
    """
    if in_bucket(path) or any((Path(path) / name).exists() for name in (CONFIG_FILE, RUN_FILE)):
        if drawing is None:
            raise InputError(f"{path}: is a model directory, expected pictures or statistics to compare with")
        return ModelPictures(path, drawing)
    return FolderPictures(path) if os.path.isdir(path) else NpzPictures(path)
