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

import contextlib
import dataclasses
import functools
import math
import multiprocessing.connection
import operator
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import grain
import numpy as np
from absl import flags

from var_jax.data.sources import IMAGES, TOKENS, Source
from var_jax.data.transforms import Crop
from var_jax.errors import InputError

Batch = dict[str, np.ndarray]
_OF_THE_MAIN_PROCESS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PREFETCH = 2  # batches kept ready
_MOST_TRIES = 100  # damaged pictures in a row; more are no coincidence


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
    prefetch: int = _PREFETCH,
) -> Iterator[Batch]:
    """Endless batches for training from `start_step` on; `close()` of the iterator stops its workers.

    Args:
      source: the source of pictures, or of stored tokens.
      size: side of the pictures in a batch, in pixels.
      batch_size: examples per step over all processes, B.
      seed: fixes order and crops, 0 or more.
      start_step: the step of the first batch.
      enlarge, flip: see `Crop`.
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
    order_seed, crop_seed = _seeds(seed)
    example = _Examples(source, Crop(size, enlarge, flip), crop_seed).training
    indices = grain.MapDataset.range(len(source)).shuffle(seed=order_seed).repeat()
    parts = indices.map_with_index(example).batch(batch_size // process_count, drop_remainder=True)
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
) -> Iterator[Batch]:
    """Batches for validation: every picture once, in the source's order, cropped at the centre.

    The arguments are those of `train_batches`. A batch has the same keys and "mask", float32 [b]: 1 for a picture and
    0 for padding, which fills the last batch and the place of a damaged picture: black, of class 0, with index -1.
    Every process gets the same number of batches.
    """
    _check(batch_size, process_index, process_count, workers)
    padded = steps_per_epoch(len(source), batch_size) * batch_size
    example = functools.partial(_Examples(source, Crop(size, enlarge)).validation, len(source))
    parts = grain.MapDataset.range(padded).map(example).batch(batch_size // process_count, drop_remainder=True)
    return _iterate(parts[process_index::process_count], workers)


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
) -> Iterator[Batch]:
    """Pictures `start` to `stop` - 1 in the source's order, with the crops that training or validation sees of them.

    Args:
      split: "train" for crops 0 .. `crops` - 1 of `train_batches`, "validation" for the crop of `epoch_batches`.
      crops: crops per picture; 1 for validation.
      batch_size: pictures per batch.
      source, size, seed, enlarge, flip, workers: as for `train_batches`.

    Returns:
      An iterator over batches like those of `train_batches`, with "images" [b, crops, size, size, 3]. Padding, in the
      last batch and in place of a damaged picture in validation, is black with label and index -1.
    """
    _check(batch_size, 0, 1, workers)
    padded = steps_per_epoch(stop - start, batch_size) * batch_size
    examples = _Examples(source, Crop(size, enlarge, flip), _seeds(seed)[1])
    example = functools.partial(examples.cuts, split, crops, stop)
    batches = grain.MapDataset.range(start, start + padded).map(example).batch(batch_size, drop_remainder=True)
    return _iterate(batches, workers)


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Number of batches for `count` pictures, a partial last one included."""
    return math.ceil(count / batch_size)


def _seeds(seed: int) -> tuple[int, int]:
    """The seeds of a run's order and of its crops."""
    if seed < 0:
        raise InputError(f"seed {seed} must be 0 or more")
    return tuple(np.random.SeedSequence(seed).generate_state(2, np.uint32).tolist())


def _check(batch_size: int, process_index: int, process_count: int, workers: int, prefetch: int = _PREFETCH) -> None:
    if not 0 <= process_index < process_count:
        raise InputError(f"process_index {process_index} must lie between 0 and process_count {process_count} - 1")
    if batch_size < 1 or batch_size % process_count:
        raise InputError(f"batch_size {batch_size} must be a positive multiple of the {process_count} processes")
    if workers < 0 or prefetch < 0:
        raise InputError(f"workers {workers} and prefetch {prefetch} must be 0 or more")


def _iterate(batches: grain.MapDataset, workers: int, prefetch: int = _PREFETCH) -> Iterator[Batch]:
    # An element is a whole batch by now, so Grain's own default of 500 read ahead would fill the memory.
    ahead = 1 if workers else prefetch
    dataset = batches.to_iter_dataset(grain.ReadOptions(num_threads=ahead, prefetch_buffer_size=ahead))
    if workers:
        if not flags.FLAGS.is_parsed():
            # Grain's workers read absl flags, which a program without absl's own main never parses.
            flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=max(prefetch, 1))
        return _shielded(iter(dataset.mp_prefetch(options, worker_init_fn=_end_with_parent)))
    return iter(dataset)


def _end_with_parent(index: int, count: int) -> None:
    """Ends a worker, which otherwise waits for ever to be read from, when its parent is killed."""
    sentinel = multiprocessing.parent_process().sentinel
    threading.Thread(target=lambda: (multiprocessing.connection.wait([sentinel]), os._exit(1)), daemon=True).start()


def _shielded(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The batches of workers that no signal to the whole group reaches: the main process saves, and ends its workers.

    They start with the first batch, and have the signals blocked that were blocked then.
    """
    with contextlib.closing(batches):
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_THE_MAIN_PROCESS)
        try:
            first = next(batches)
        except StopIteration:
            return
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield first
        yield from batches


@dataclasses.dataclass(frozen=True)
class _Examples:
    """Makes a source's examples; an object with methods and no closures, so that it can be sent to a worker.

    Crop j of picture i depends on (seed, i, j) alone. Training takes crop j in its j-th epoch (from 0), so that the
    first epochs of a run on pictures and a store of as many crops per picture, made with the run's seed, hold the same.
    """

    source: Source
    crop: Crop
    crop_seed: int = 0

    def training(self, number: int, index: int) -> dict[str, Any]:
        """The example with a number in the endless sequence, of the picture with an index."""
        index, epoch = operator.index(index), operator.index(number) // len(self.source)
        if self.source.holds == TOKENS:
            return _example(TOKENS, *self.source.crop(index, epoch), index)
        image, label, used = self._readable(index)
        return _example(IMAGES, self._cut(image, used, epoch), label, used, -1 if used == index else index)

    def validation(self, stop: int, index: int) -> dict[str, Any]:
        """A picture's centre with mask 1; for numbers from `stop` on and damaged pictures, padding with mask 0."""
        index, skipped = operator.index(index), -1
        if index < stop:
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

    def cuts(self, split: str, count: int, stop: int, index: int) -> dict[str, Any]:
        """The first `count` of a picture's training crops, or the single one of validation; padding has label -1."""
        index = operator.index(index)
        if split == "train" and index < stop:
            image, label, used = self._readable(index)
            cut = np.stack([self._cut(image, used, number) for number in range(count)])
            return _example(IMAGES, cut, label, used, -1 if used == index else index)
        example = self.validation(stop, index)
        label = example["labels"] if example.pop("mask") else np.int32(-1)
        return example | {IMAGES: np.stack([example[IMAGES]] * count), "labels": label}

    def _readable(self, index: int) -> tuple[np.ndarray, int, int]:
        """Picture `index`, or the next that can be read (after the last comes the first), its class id and index.

        The error of picture `index` is raised if a hundred in a row cannot be read.
        """
        first = None
        for used in range(index, index + min(_MOST_TRIES, len(self.source))):
            used %= len(self.source)
            try:
                return *self.source[used], used
            except InputError as error:
                first = first or error
        raise first

    def _cut(self, image: np.ndarray, index: int, number: int) -> np.ndarray:
        return self.crop.training(image, np.random.default_rng((self.crop_seed, index, number)))

    def _padding(self) -> np.ndarray:
        if self.source.holds == TOKENS:
            return np.zeros_like(self.source[0][0])
        return np.zeros((self.crop.size, self.crop.size, 3), np.uint8)


def _example(holds: str, held: np.ndarray, label: int, index: int, skipped: int = -1) -> dict[str, Any]:
    return {holds: held, "labels": np.int32(label), "indices": np.int64(index), "skipped": np.int64(skipped)}
