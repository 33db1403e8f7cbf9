"""How fast pictures come from a folder of JPEG files to batches, a core: this package's pipeline, and PyTorch's beside.

Both read the same files, scale and crop alike with Pillow, and give batches of uint8 squares in random order.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from var_jax.benchmark import beside, machine
from var_jax.benchmark.reference_worker import turn
from var_jax.benchmark.speed_report import Case, Report
from var_jax.benchmark.timing import take_turns
from var_jax.data.pipeline import train_batches
from var_jax.data.sources import Spread, make_source
from var_jax.errors import InputError

_ENLARGE = 1.125
_READY = 4  # batches a worker may have made while nobody waited: two kept ready, one read ahead, the one it is at
_MOST_FILES = 50_000  # that a measurement looks at, evenly spread over the folder
_SIDES = (500, 375)


def load(
    folder: str | os.PathLike[str],
    size: int,
    batch: int,
    batches: int,
    workers: int,
    repeats: int,
    against: str | os.PathLike[str] | None = None,
    say: Callable[[str], None] = print,
) -> Report:
    """Turns of so many batches, read and cut as training does.

    Args:
      folder: of pictures, a sub-folder a class.
      size: side of the squares in pixels.
      batch: pictures a batch.
      batches: of a turn.
      workers: processes that read; 0: this one, one picture after another.
      repeats: turns that count.
      against: a checkout of the reference: PyTorch's DataLoader with as many workers takes turns with ours.
      say: told what is at work.

    Raises:
      InputError: for numbers or a folder that cannot be.
    """
    for name, value in {"size": size, "batch": batch, "batches": batches, "workers": workers}.items():
        if value < (least := 0 if name == "workers" else 1):
            raise InputError(f"--{name} {value}: expected {least} or more")
    source = make_source("folder", "train", path=folder)
    files = [str(source.file(i).resolve()) for i in np.unique(np.linspace(0, len(source) - 1, _MOST_FILES).astype(int))]
    ahead = 2 if workers else 0
    ours = train_batches(Spread(source, _MOST_FILES), size, batch, 0, enlarge=_ENLARGE, workers=workers, prefetch=ahead)
    ready, lanes, theirs, versions = _READY * workers, max(workers, 1), None, {}
    with contextlib.ExitStack() as opened:
        opened.enter_context(contextlib.closing(ours))
        say(f"data: {repeats} turns of {batches} batches" + (", in turn with PyTorch's DataLoader" if against else ""))
        runs, pause = {"ours": lambda: turn(ours, ready, batches)}, 0.0
        if against:
            task = {"what": "data", "device": "cpu", "files": files, "size": size, "shorter": round(_ENLARGE * size)}
            task |= {"batch": batch, "workers": workers, "ready": ready, "batches": batches}
            reference = opened.enter_context(beside.Reference(against, task))
            runs["reference"], versions = reference.run, reference.versions
            # By then the other side's workers have filled what they keep ready, and sleep.
            pause = 1.5 * turn(ours, ready, batches) * ready / (batches * lanes)
        timings = take_turns(runs, repeats, pause=pause)
        theirs = (timings["reference"], 0) if against else None
    title = f"{workers} worker{'s'[: workers != 1]}"
    case = Case(title, batch * batches, timings["ours"], 0, (), 0, theirs, lanes)
    told = {"folder": str(folder), "files": len(files), "pixels": size, "batch": batch, "workers": workers}
    return Report("data", told, [case], None, machine.describe(), versions)


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
    """Noise of falling strength at ever finer scales, as photographs have it; some 90 kB a file at quality 90."""
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
