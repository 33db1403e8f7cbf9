"""Features of many pictures: streamed, split over devices, and kept on disk so that an interrupted run resumes."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from var_jax.errors import InputError
from var_jax.evaluation.pictures import Pictures
from var_jax.formats.atomic import atomic_file
from var_jax.formats.small_files import read_arrays, read_text
from var_jax.models.parameters import Params
from var_jax.parallel.mesh import batch_sharding, check_batch, make_mesh, replicated
from var_jax.parallel.processes import from_all
from var_jax.pretrained.inception import Features, extract

CHUNK = 1024  # pictures whose features are returned, and written, together
_DIGEST = 8  # bytes of a picture's digest

Apply = Callable[[Params, jax.Array], Features]


class Chunk(NamedTuple):
    """Features of consecutive pictures.

    Attributes:
      pool: [N, 2048] float32.
      spatial: [N, 2023] float32.
      digests: [N] uint64; equal pictures have equal digests.
    """

    pool: np.ndarray
    spatial: np.ndarray
    digests: np.ndarray


class Extractor:
    """A network on all devices of a mesh, each of which sees its part of a batch.

    Args:
      params: the network's parameters.
      identity: identifies the weights, so that features on disk are only reused for the same network.
      mesh: by default all devices as one row; a batch is split over its batch axes.
      batch: pictures at a time, a multiple of the devices.
      apply: (params, uint8 [B, H, W, 3]) -> features; by default the 2015 Inception network.

    Raises:
      InputError: if the batch does not divide over the devices.
    """

    def __init__(
        self,
        params: Params,
        identity: str,
        mesh: jax.sharding.Mesh | None = None,
        batch: int = 64,
        apply: Apply = extract,
    ) -> None:
        self.mesh, self.batch, self.identity = mesh or make_mesh(), batch, identity
        check_batch(self.mesh, batch, "--batch")
        self._rows = batch_sharding(self.mesh)
        self._params = jax.device_put(params, replicated(self.mesh))
        # Rows come back whole and in the order of the pictures, whichever device computed them.
        self._apply = jax.jit(apply, out_shardings=replicated(self.mesh))

    def __call__(self, images_NxHxWx3: np.ndarray) -> Features:
        """Features of at most `batch` pictures on the device; a smaller batch is padded, and the padding removed."""
        count = len(images_NxHxWx3)
        filled = np.zeros((self.batch, *images_NxHxWx3.shape[1:]), np.uint8)
        filled[:count] = images_NxHxWx3
        # Each of several processes has all pictures, and puts on its devices the ones that belong there.
        batch = jax.make_array_from_callback(filled.shape, self._rows, lambda rows: filled[rows])
        found = self._apply(self._params, batch)
        return Features(*(part[:count] for part in found))

    def chunks(
        self,
        pictures: Pictures,
        work: str | os.PathLike[str] | None = None,
        say: Callable[[str], None] = lambda text: None,
        chunk: int = CHUNK,
    ) -> Iterator[Chunk]:
        """The features of all pictures in their order, `chunk` pictures at a time.

        Args:
          work: a folder that keeps computed features; another call with the same pictures, weights and folder
            reads them and goes on from there.
          chunk: pictures at a time, rounded up to whole batches.

        Raises:
          InputError: if the pictures cannot be read, or `work` holds features of others.
        """
        chunk = -(-chunk // self.batch) * self.batch
        kept = _Kept(Path(work), f"{pictures.identity()} {self.identity} {chunk}") if work else None
        fresh: Iterator[np.ndarray] | None = None
        for number, start in enumerate(range(0, pictures.count, chunk)):
            count = min(chunk, pictures.count - start)
            found = kept.read(number, count) if kept and fresh is None else None
            if not all(from_all("kept", found is not None)):  # if one process has to compute it, all have to
                if fresh is None:
                    fresh = pictures.batches(start, self.batch)
                found = self._chunk(fresh, count)
                if kept and jax.process_index() == 0:
                    kept.write(number, found)
            say(f"{pictures.name}: features of {start + count}/{pictures.count} pictures")
            yield found

    def _chunk(self, fresh: Iterator[np.ndarray], count: int) -> Chunk:
        """The features of the next `count` pictures, computed in whole batches except for the last one."""
        parts, digests, seen = [], [], 0
        while seen < count:
            images = next(fresh)
            found = self(images)  # computed while the next pictures are read
            digests += [hashlib.blake2b(image.tobytes(), digest_size=_DIGEST).digest() for image in images]
            seen += len(images)
            if parts:
                parts[-1] = jax.device_get(parts[-1])
            parts.append(found)
        pool, spatial = (np.concatenate(rows) for rows in zip(*parts, strict=True))
        return Chunk(pool, spatial, np.frombuffer(b"".join(digests), np.uint64))


class _Kept:
    """A folder of chunks, one file per chunk: the features of one row of pictures by one network."""

    def __init__(self, folder: Path, identity: str) -> None:
        self._folder, self._identity = folder, identity
        note = folder / "features_of.txt"
        if note.exists():
            if read_text(note, "the note on the features", "remove the folder") != identity:
                raise InputError(
                    f"{folder}: holds features of other pictures, weights or settings; choose another --work or "
                    "remove it"
                )
            return
        with atomic_file(note) as temporary:
            temporary.write_text(identity, encoding="utf-8")

    def read(self, number: int, pictures: int) -> Chunk | None:
        """A chunk of so many pictures, or None if its file is missing or damaged."""
        with contextlib.suppress(InputError):
            chunk = Chunk(**read_arrays(self._file(number), "features", Chunk._fields))
            return chunk if all(part.shape[:1] == (pictures,) for part in chunk) else None
        return None

    def write(self, number: int, chunk: Chunk) -> None:
        """Writes a chunk."""
        with atomic_file(self._file(number)) as temporary, open(temporary, "wb") as file:
            np.savez(file, **chunk._asdict())

    def _file(self, number: int) -> Path:
        return self._folder / f"features-{number:05}.npz"
