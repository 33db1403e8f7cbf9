"""From a source to batches: what comes when is a pure function of seed and step, whoever reads it (Grain).

Training sees an endless sequence of examples: the source's pictures, shuffled anew for each epoch. Step s takes
examples s B .. (s+1) B - 1 of it, B being the batch over all processes, and process p of P takes the p-th part of
those. What is random about an example depends on the seed and its number in the sequence. So a run that starts at
step s needs no state and no replay, and the number of processes, workers or threads changes nothing.

Worker processes are spawned: a script that asks for them keeps its own doings under `if __name__ == "__main__"`.
"""

from __future__ import annotations

import dataclasses
import math
import operator
import signal
from collections.abc import Iterator
from typing import Any

import grain
import numpy as np
from absl import flags

from var_jax.data.sources import Source
from var_jax.data.transforms import Crop
from var_jax.errors import InputError

Batch = dict[str, np.ndarray]


def train_batches(
    source: Source,
    size: int,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    *,
    enlarge: float = 1.125,
    flip: bool = False,
    process_index: int = 0,
    process_count: int = 1,
    workers: int = 0,
    prefetch: int = 2,
) -> Iterator[Batch]:
    """Batches for training from `start_step` on, without end; `close()` of the iterator stops its workers.

    Args:
      source: where pictures come from.
      size: side of the pictures in a batch, in pixels.
      batch_size: examples of a step over all processes, B.
      seed: fixes order and crops, 0 or more.
      start_step: the step whose batch comes first.
      enlarge: see `Crop`.
      flip: see `Crop`.
      process_index: this process, p.
      process_count: how many processes share a step, P; it divides B.
      workers: processes that read pictures; with 0 threads of this process do.
      prefetch: batches kept ready, by each worker or by this process; with 0 (and no workers) none is read ahead.

    Returns:
      An iterator over {"images": uint8 [b, size, size, 3], "labels": int32 [b], "indices": int64 [b]} with b = B / P;
      the indices are the pictures' places in `source`.

    Raises:
      InputError: if a number is out of range. The iterator raises what the source does on a damaged picture.
    """
    _check(batch_size, process_index, process_count, workers, prefetch)
    if seed < 0 or start_step < 0:
        raise InputError(f"seed {seed} and start_step {start_step} must be 0 or more")
    order_seed, crop_seed = (int(word) for word in np.random.SeedSequence(seed).generate_state(2, np.uint32))
    crop = Crop(size, enlarge, flip)
    examples = grain.MapDataset.source(_Numbered(source)).shuffle(seed=order_seed).repeat()
    examples = examples.random_map(_TrainingCrop(crop), seed=crop_seed)
    parts = examples.batch(batch_size // process_count, drop_remainder=True)
    return _iterate(parts[start_step * process_count + process_index :: process_count], workers, prefetch)


def epoch_batches(
    source: Source,
    size: int,
    batch_size: int,
    *,
    enlarge: float = 1.125,
    process_index: int = 0,
    process_count: int = 1,
    workers: int = 0,
    prefetch: int = 2,
) -> Iterator[Batch]:
    """Batches for validation: every picture once, in the source's order, cut from the middle.

    The arguments are those of `train_batches`. A batch has the same keys and "mask", float32 [b]: 1 for a picture and
    0 for the filling of the last batch, which is black, of class 0 and has the index -1. Every process gets the same
    number of batches.
    """
    _check(batch_size, process_index, process_count, workers, prefetch)
    padded = steps_per_epoch(len(source), batch_size) * batch_size
    examples = grain.MapDataset.range(padded).map(_Validation(source, Crop(size, enlarge)))
    parts = examples.batch(batch_size // process_count, drop_remainder=True)
    return _iterate(parts[process_index::process_count], workers, prefetch)


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Batches that `count` pictures fill, the last one perhaps in part."""
    return math.ceil(count / batch_size)


def _check(batch_size: int, process_index: int, process_count: int, workers: int, prefetch: int) -> None:
    if not 0 <= process_index < process_count:
        raise InputError(f"process_index {process_index} must lie between 0 and process_count {process_count} - 1")
    if batch_size < 1 or batch_size % process_count:
        raise InputError(f"batch_size {batch_size} must be a positive multiple of the {process_count} processes")
    if workers < 0 or prefetch < 0:
        raise InputError(f"workers {workers} and prefetch {prefetch} must be 0 or more")


def _iterate(batches: grain.MapDataset, workers: int, prefetch: int) -> Iterator[Batch]:
    # An element is a whole batch by now, so Grain's own default of 500 read ahead would fill the memory.
    ahead = 1 if workers else prefetch
    dataset = batches.to_iter_dataset(grain.ReadOptions(num_threads=ahead, prefetch_buffer_size=ahead))
    if workers:
        if not flags.FLAGS.is_parsed():
            # Grain's workers look up absl flags, which nobody parses in a program without absl's own main.
            flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=max(prefetch, 1))
        dataset = dataset.mp_prefetch(options, worker_init_fn=_outlive_sigterm)
    return iter(dataset)


def _outlive_sigterm(index: int, count: int) -> None:
    """Leaves SIGTERM to the process that trains, which saves and ends its workers, even if the whole group got it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


# What Grain calls for an example; classes and not closures, so that they can be sent to a worker.


@dataclasses.dataclass(frozen=True)
class _Numbered:
    """The source with each picture's index beside it."""

    source: Source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = operator.index(index)
        image, label = self.source[index]
        return {"images": image, "labels": np.int32(label), "indices": np.int64(index)}


@dataclasses.dataclass(frozen=True)
class _TrainingCrop(grain.transforms.RandomMap):
    crop: Crop

    def random_map(self, element: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        return element | {"images": self.crop.training(element["images"], rng)}


@dataclasses.dataclass(frozen=True)
class _Validation(grain.transforms.Map):
    """From an example's number to the picture, or to the filling after the last one."""

    source: Source
    crop: Crop

    def map(self, element: int) -> dict[str, Any]:
        if element >= len(self.source):
            black = np.zeros((self.crop.size, self.crop.size, 3), np.uint8)
            return {"images": black, "labels": np.int32(0), "indices": np.int64(-1), "mask": np.float32(0)}
        example = _Numbered(self.source)[element]
        return example | {"images": self.crop.validation(example["images"]), "mask": np.float32(1)}
