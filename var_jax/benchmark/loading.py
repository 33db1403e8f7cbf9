"""Measures how fast a folder of JPEG files becomes batches, per core: this package's pipeline beside PyTorch's.

Both read the same files, scale and crop alike with Pillow, and return batches of uint8 squares in random order.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from var_jax.benchmark import beside, machine
from var_jax.benchmark.reference_worker import turn
from var_jax.benchmark.speed_report import Case, Report
from var_jax.benchmark.timing import progress
from var_jax.data.pipeline import train_batches
from var_jax.data.sources import Spread, make_source
from var_jax.errors import InputError

_ENLARGE = 1.125
_READY = 4  # batches that a worker may have ready before a turn: two in its queue, one read ahead, one in the making
_MOST_FILES = 50_000  # files that a measurement reads at most, evenly spread over the folder
_SIDES = (500, 375)


def load(
    folder: str | os.PathLike[str],
    size: int,
    batch: int,
    batches: int,
    workers: int,
    repeats: int,
    against: str | os.PathLike[str] | None = None,
) -> Report:
    """Times turns of `batches` batches, read and cropped as training does.

    Args:
      folder: a folder of pictures with one sub-folder per class.
      size: side of the squares in pixels.
      batch: pictures per batch.
      batches: batches per turn.
      workers: processes that read; 0: this process reads, one picture after another.
      repeats: turns that count.
      against: a checkout of the reference: PyTorch's DataLoader with as many workers takes turns with ours.

    Raises:
      InputError: for invalid numbers or a folder without pictures.
    """
    for name, value in {"size": size, "batch": batch, "batches": batches, "workers": workers}.items():
        if value < (least := 0 if name == "workers" else 1):
            raise InputError(f"--{name} {value}: expected {least} or more")
    source = make_source("folder", "train", path=folder)
    files = [str(source.file(i).resolve()) for i in np.unique(np.linspace(0, len(source) - 1, _MOST_FILES).astype(int))]
    ahead = 2 if workers else 0
    ours = train_batches(Spread(source, _MOST_FILES), size, batch, 0, enlarge=_ENLARGE, workers=workers, prefetch=ahead)
    ready, lanes = _READY * workers, max(workers, 1)
    task = {"what": "data", "device": "cpu", "files": files, "size": size, "shorter": round(_ENLARGE * size)}
    task |= {"batch": batch, "workers": workers, "ready": ready, "batches": batches}
    with contextlib.closing(ours):
        progress(
            f"data: {repeats} turns of {batches} batches" + (", in turn with PyTorch's DataLoader" if against else "")
        )
        run = lambda: turn(ours, ready, batches)
        # Long enough that the other side's workers have filled their queues and sleep.
        pause = 1.5 * run() * ready / (batches * lanes) if against else 0.0
        timing, theirs, versions = beside.in_turn(run, against, task, repeats, pause=pause)
    title = f"{workers} worker{'s'[: workers != 1]}"
    theirs = theirs and (theirs[0], 0)  # its memory is that of other processes, too
    case = Case(title, batch * batches, timing, 0, (), 0, theirs, lanes)
    settings = {"folder": str(folder), "files": len(files), "pixels": size, "batch": batch, "workers": workers}
    return Report("data", settings, [case], None, machine.describe(), versions)


def make_folder(folder: Path, count: int) -> None:
    """Fills a folder with JPEG pictures of 500 x 375 and 375 x 500 pixels, two classes, structure at every scale.

    Raises:
      InputError: for fewer than four.
    """
    if count < 4:
        raise InputError(f"--pictures {count}: expected 4 or more")
    for name in ("one", "two"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(_pictures(count)):
        picture.save(folder / ("one", "two")[number % 2] / f"{number:05d}.jpg", quality=90)


def _pictures(count: int) -> Iterator[Image.Image]:
    """Noise whose strength falls with scale, as in photographs; some 90 kB per file at quality 90."""
    rng = np.random.default_rng(0)
    for number in range(count):
        width, height = _SIDES if number % 3 else _SIDES[::-1]
        total, cell = np.zeros((height, width, 3), np.float32), 256
        while cell >= 1:
            rows, columns = -(-height // cell) + 1, -(-width // cell) + 1
            noise = Image.fromarray(rng.integers(0, 256, (rows, columns, 3), np.uint8))
            smooth = noise.resize((columns * cell, rows * cell), Image.Resampling.BICUBIC).crop((0, 0, width, height))
            total += (np.asarray(smooth, np.float32) - 127.5) * (cell / 256) ** 0.5
            cell //= 2
        yield Image.fromarray(np.clip(total * 0.6 + 127.5, 0, 255).astype(np.uint8))
