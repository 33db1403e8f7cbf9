"""From a source to batches (Grain): the batch of a step is a pure function of seed and step.

Training sees an endless sequence of examples: the source's pictures, shuffled anew in every epoch. Step s takes
examples s B .. (s+1) B - 1 of it, B being the batch over all processes, and process p of P takes the p-th part of
them. The randomness of an example depends on the seed, its picture and the epoch alone. So a run that starts at step
s needs no state and no replay, and the number of processes, workers or threads changes nothing.

A store of tokens is read like a source of pictures: each epoch takes another of its crops, in turn.

A picture that cannot be read is left out: training takes the next one of the source in its place, validation none.

Worker processes are spawned: a script that uses them needs its own code under `if __name__ == "__main__"`.
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

from var_jax.data.reading import TrainingCrops, seeds
from var_jax.data.sources import IMAGES, TOKENS, Source
from var_jax.data.transforms import Crop
from var_jax.errors import InputError

Batch = dict[str, np.ndarray]
NO_LABEL = -1  # label of padding


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
    """Endless batches for training from `start_step` on; `close()` of the iterator stops its workers.

    Args:
      source: the source of pictures, or of stored tokens.
      size: side of the pictures in a batch, in pixels.
      batch_size: examples per step over all processes, B.
      seed: fixes order and crops, 0 or more.
      start_step: the step of the first batch.
      enlarge: see `Crop`.
      flip: see `Crop`.
      process_index: this process, p.
      process_count: number of processes that share a step, P; it divides B.
      workers: processes that read pictures; with 0, threads of this process read.
      prefetch: batches kept ready, by each worker or by this process; with 0 (and no workers) none is read ahead.

    Returns:
      An iterator over {"images": uint8 [b, size, size, 3], "labels": int32 [b], "indices": int64 [b], "skipped":
      int64 [b]} with b = B / P; `indices` are the pictures' indices in `source`, `skipped` the index of the damaged
      picture that this one replaces, or -1. A store yields "tokens", int32 [b, L], in place of the images.

    Raises:
      InputError: if a number is out of range. The iterator raises the source's error if a hundred pictures in a
        row are damaged, or a record of a store is.
    """
    _check(batch_size, process_index, process_count, workers, prefetch)
    if start_step < 0:
        raise InputError(f"start_step {start_step} must be 0 or more")
    order_seed, crop_seed = seeds(seed)
    crops = TrainingCrops(source, Crop(size, enlarge, flip), crop_seed)
    examples = grain.MapDataset.range(len(source)).shuffle(seed=order_seed).repeat()
    examples = examples.map_with_index(_Training(crops))
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
    """Batches for validation: every picture once, in the source's order, cropped at the centre.

    The arguments are those of `train_batches`. A batch has the same keys and "mask", float32 [b]: 1 for a picture and
    0 for padding, which fills the last batch and the place of a damaged picture: black, of class 0, with index -1.
    Every process gets the same number of batches.
    """
    _check(batch_size, process_index, process_count, workers, prefetch)
    padded = steps_per_epoch(len(source), batch_size) * batch_size
    examples = grain.MapDataset.range(padded).map(_Validation(source, Crop(size, enlarge)))
    parts = examples.batch(batch_size // process_count, drop_remainder=True)
    return _iterate(parts[process_index::process_count], workers, prefetch)


def cut_batches(
    source: Source,
    split: str,
    crops: int,
    size: int,
    batch_size: int,
    seed: int,
    start: int,
    stop: int,
    *,
    enlarge: float = 1.125,
    flip: bool = False,
    workers: int = 0,
    prefetch: int = 2,
) -> Iterator[Batch]:
    """Pictures `start` to `stop` - 1 in the source's order, with the crops that training or validation sees of them.

    Args:
      split: "train" for crops 0 .. `crops` - 1 of `train_batches`, "validation" for the crop of `epoch_batches`.
      crops: crops per picture; 1 for validation.
      batch_size: pictures per batch.
      source, size, seed, enlarge, flip, workers, prefetch: as for `train_batches`.

    Returns:
      An iterator over batches like those of `train_batches`, with "images" [b, crops, size, size, 3]. Padding, in the
      last batch and in place of a damaged picture in validation, is black with label and index -1.
    """
    _check(batch_size, 0, 1, workers, prefetch)
    cuts = _Cuts(TrainingCrops(source, Crop(size, enlarge, flip), seeds(seed)[1]), split, crops, stop)
    padded = steps_per_epoch(stop - start, batch_size) * batch_size
    examples = grain.MapDataset.range(start, start + padded).map(cuts)
    return _iterate(examples.batch(batch_size, drop_remainder=True), workers, prefetch)


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Number of batches for `count` pictures, a partial last one included."""
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
            # Grain's workers read absl flags, which a program without absl's own main never parses.
            flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=max(prefetch, 1))
        dataset = dataset.mp_prefetch(options, worker_init_fn=_outlive_sigterm)
    return iter(dataset)


def _outlive_sigterm(index: int, count: int) -> None:
    """Ignores SIGTERM in a worker, even if the whole group gets it: the training process saves and ends its workers."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


# Grain's transforms; classes and not closures, so that they can be sent to a worker.


@dataclasses.dataclass(frozen=True)
class _Training(grain.transforms.MapWithIndex):
    """Makes an example from its number in the endless sequence and its picture's index."""

    crops: TrainingCrops

    def map_with_index(self, number: int, index: int) -> dict[str, Any]:
        source = self.crops.source
        index, epoch = operator.index(index), operator.index(number) // len(source)
        if source.holds == TOKENS:
            tokens, label = source.crop(index, epoch)
            return _example(TOKENS, tokens, label, index)
        picture = self.crops.read(index)
        return _example(IMAGES, self.crops.cut(picture, epoch), picture.label, picture.index, picture.skipped)


@dataclasses.dataclass(frozen=True)
class _Validation(grain.transforms.Map):
    """Makes an example from a picture's centre, or padding for a number after the last picture."""

    source: Source
    crop: Crop

    def map(self, element: int) -> dict[str, Any]:
        index, skipped = operator.index(element), -1
        if index < len(self.source):
            try:
                held, label = self.source[index]
            except InputError:
                if self.source.holds == TOKENS:
                    raise
                skipped = index
            else:
                if label >= 0:
                    held = held if self.source.holds == TOKENS else self.crop.validation(held)
                    return _example(self.source.holds, held, label, index) | {"mask": np.float32(1)}
        return _example(self.source.holds, self._padding(), 0, -1, skipped) | {"mask": np.float32(0)}

    def _padding(self) -> np.ndarray:
        if self.source.holds == TOKENS:
            return np.zeros_like(self.source[0][0])
        return np.zeros((self.crop.size, self.crop.size, 3), np.uint8)


@dataclasses.dataclass(frozen=True)
class _Cuts(grain.transforms.Map):
    """Makes `count` crops of a picture: training's, or the single one of validation."""

    crops: TrainingCrops
    split: str
    count: int
    stop: int

    def map(self, element: int) -> dict[str, Any]:
        index, size = operator.index(element), self.crops.crop.size
        black = np.zeros((self.count, size, size, 3), np.uint8)
        if index >= self.stop:
            return _example(IMAGES, black, NO_LABEL, -1)
        if self.split == "train":
            picture = self.crops.read(index)
            cut = np.stack([self.crops.cut(picture, number) for number in range(self.count)])
            return _example(IMAGES, cut, picture.label, picture.index, picture.skipped)
        try:
            image, label = self.crops.source[index]
        except InputError:
            return _example(IMAGES, black, NO_LABEL, -1, index)
        return _example(IMAGES, self.crops.crop.validation(image)[None], label, index)


def _example(holds: str, held: np.ndarray, label: int, index: int, skipped: int = -1) -> dict[str, Any]:
    return {holds: held, "labels": np.int32(label), "indices": np.int64(index), "skipped": np.int64(skipped)}
