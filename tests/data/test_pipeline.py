"""Batches: order and crops follow from seed and step, whoever reads them and wherever they start."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image

from var_jax.data.folder import Folder
from var_jax.data.pipeline import epoch_batches, steps_per_epoch, train_batches
from var_jax.data.shapes import Shapes
from var_jax.data.transforms import Crop
from var_jax.errors import InputError

COUNT, SIZE, BATCH = 30, 16, 8
SOURCE = Shapes("train", size=20, count=COUNT)


def take(count, **options):
    given = {"source": SOURCE, "size": SIZE, "batch_size": BATCH, "seed": 7, "flip": True} | options
    batches = train_batches(**given)
    try:
        return list(itertools.islice(batches, count))
    finally:
        batches.close()


def assert_same(batches, expected):
    assert len(batches) == len(expected)
    for batch, other in zip(batches, expected, strict=True):
        assert batch.keys() == other.keys()
        for key in batch:
            np.testing.assert_array_equal(batch[key], other[key], err_msg=key)


@pytest.fixture(scope="module")
def unbroken():
    return take(12)


def test_what_a_batch_holds(unbroken):
    batch = unbroken[0]
    described = {key: (value.shape, value.dtype) for key, value in batch.items()}
    assert described == {
        "images": ((BATCH, SIZE, SIZE, 3), np.uint8),
        "labels": ((BATCH,), np.int32),
        "indices": ((BATCH,), np.int64),
        "skipped": ((BATCH,), np.int64),
    }
    assert (batch["skipped"] == -1).all()
    np.testing.assert_array_equal(batch["labels"], SOURCE.labels()[batch["indices"]])
    untouched = take(2, size=20, enlarge=1.0, flip=False)
    for image, index in zip(untouched[1]["images"], untouched[1]["indices"], strict=True):
        np.testing.assert_array_equal(image, SOURCE[index][0])


def test_each_epoch_is_another_permutation(unbroken):
    order = np.concatenate([batch["indices"] for batch in unbroken])[: 3 * COUNT].reshape(3, COUNT)
    np.testing.assert_array_equal(np.sort(order, axis=1), np.tile(np.arange(COUNT), (3, 1)))
    assert len({tuple(epoch) for epoch in order} | {tuple(range(COUNT))}) == 4


def test_another_seed_is_another_order_and_other_crops(unbroken):
    other = take(4, seed=8)
    assert np.any(other[0]["indices"] != unbroken[0]["indices"])
    first = {
        int(i): image for batch in unbroken[:4] for i, image in zip(batch["indices"], batch["images"], strict=True)
    }
    second = {int(i): image for batch in other for i, image in zip(batch["indices"], batch["images"], strict=True)}
    shared = first.keys() & second.keys()
    assert sum(np.array_equal(first[i], second[i]) for i in shared) < len(shared) / 4


def test_crops_of_a_picture_differ_from_epoch_to_epoch(unbroken):
    crops = {}
    for batch in unbroken:
        for index, image in zip(batch["indices"], batch["images"], strict=True):
            crops.setdefault(int(index), []).append(image.tobytes())
    assert np.mean([len(set(seen)) / len(seen) for seen in crops.values()]) > 0.8


@pytest.mark.parametrize("start", [0, 1, 5])
@pytest.mark.parametrize("prefetch", [0, 3])
def test_starting_late_is_going_on(unbroken, start, prefetch):
    assert_same(take(12 - start, start_step=start, prefetch=prefetch), unbroken[start:])


def test_a_far_step_costs_nothing():
    far = 10**9
    (batch,) = take(1, start_step=far)
    epoch, place = divmod(far * BATCH, COUNT)
    assert place + BATCH <= COUNT
    whole_epoch = take(COUNT, batch_size=1, start_step=epoch * COUNT)
    np.testing.assert_array_equal(np.sort(np.concatenate([b["indices"] for b in whole_epoch])), np.arange(COUNT))
    assert_same([{key: value[:1] for key, value in batch.items()}], whole_epoch[place : place + 1])


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_a_step(unbroken, processes):
    parts = [take(6, process_index=p, process_count=processes, start_step=2) for p in range(processes)]
    joined = [
        {key: np.concatenate([part[key] for part in step]) for key in step[0]} for step in zip(*parts, strict=True)
    ]
    assert_same(joined, unbroken[2:8])


def test_workers_change_nothing(unbroken):
    assert_same(take(9, workers=2, start_step=3), unbroken[3:])


@pytest.mark.parametrize("workers", [0, 1])
def test_the_next_picture_stands_in_for_a_damaged_one(tmp_path, workers):
    (tmp_path / "a").mkdir()
    for i in range(30):
        Image.new("RGB", (20, 20)).save(tmp_path / "a" / f"{i}.png")
    source = Folder("train", tmp_path, 0.2)
    for place in (0, 3, 4):
        source.file(place).write_bytes(b"rubbish")
    (batch,) = take(1, source=source, batch_size=len(source), workers=workers)
    stands_in = {int(s): int(i) for s, i in zip(batch["skipped"], batch["indices"], strict=True) if s >= 0}
    assert stands_in == {0: 1, 3: 5, 4: 5}
    batches = list(epoch_batches(source, SIZE, len(source), workers=workers))
    assert sorted(batches[0]["skipped"][batches[0]["mask"] == 0]) == [0, 3, 4]
    for place in range(len(source)):
        source.file(place).write_bytes(b"rubbish")
    with pytest.raises(InputError, match="cannot be read as a picture"):
        take(1, source=source, batch_size=2, workers=workers)


def test_validation_shows_every_picture_once():
    batches = list(epoch_batches(SOURCE, SIZE, BATCH))
    assert len(batches) == steps_per_epoch(COUNT, BATCH) == 4
    mask = np.concatenate([batch["mask"] for batch in batches])
    indices = np.concatenate([batch["indices"] for batch in batches])
    np.testing.assert_array_equal(mask, [1] * COUNT + [0] * 2)
    assert mask.dtype == np.float32
    np.testing.assert_array_equal(indices, [*range(COUNT), -1, -1])
    np.testing.assert_array_equal(np.concatenate([batch["labels"] for batch in batches])[:COUNT], SOURCE.labels())
    np.testing.assert_array_equal(batches[1]["images"][2], Crop(SIZE).validation(SOURCE[BATCH + 2][0]))
    assert not batches[-1]["images"][-2:].any()
    assert batches[-1]["images"].shape == (BATCH, SIZE, SIZE, 3)


@pytest.mark.parametrize("options", [{"process_count": 2}, {"process_count": 4}, {"workers": 2}], ids=str)
def test_validation_is_the_same_for_any_readers(options):
    expected = list(epoch_batches(SOURCE, SIZE, BATCH))
    processes = options.get("process_count", 1)
    parts = [list(epoch_batches(SOURCE, SIZE, BATCH, process_index=p, **options)) for p in range(processes)]
    joined = [
        {key: np.concatenate([part[key] for part in step]) for key in step[0]} for step in zip(*parts, strict=True)
    ]
    assert_same(joined, expected)


@pytest.mark.parametrize(("count", "steps"), [(1, 1), (8, 1), (9, 2), (30, 4)])
def test_steps_of_an_epoch(count, steps):
    assert steps_per_epoch(count, 8) == steps


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"batch_size": 9, "process_count": 2}, "batch_size 9"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"process_index": 2, "process_count": 2}, "process_index 2"),
        ({"seed": -1}, "seed -1"),
        ({"start_step": -1}, "start_step -1"),
        ({"workers": -1}, "workers -1"),
        ({"prefetch": -1}, "prefetch -1"),
    ],
)
def test_wrong_numbers_are_named(options, named):
    with pytest.raises(InputError, match=named):
        take(1, **options)
