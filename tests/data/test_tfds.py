"""Prepared TFDS data sets: read at random without TensorFlow, and one line about what is missing."""

from __future__ import annotations

import io
import itertools
import multiprocessing
import pickle
import shutil
import sys

import numpy as np
import pytest

from tests.data import tiny_tfds
from var_jax.data.pipeline import train_batches
from var_jax.data.sources import make_source
from var_jax.data.tfds import prepare
from var_jax.errors import InputError


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("tfds")
    for name in ("tiny_trees", "tiny_trees_without_validation", "tiny_sounds"):
        prepare(name, data_dir)
    return data_dir


def shade(image):
    """The one colour of a flat picture."""
    assert (image.shape, image.dtype) == ((7, 9, 3), np.uint8)
    assert image.min() == image.max()
    return int(image[0, 0, 0])


def test_reads_what_was_prepared(trees):
    train = make_source("tfds", "train", name="tiny_trees", data_dir=trees)
    assert train.class_names == tiny_tfds.NAMES
    examples = [train[i] for i in range(len(train))]
    assert sorted(shade(image) for image, _ in examples) == list(range(24))
    assert all(label == shade(image) % 3 for image, label in examples)
    np.testing.assert_array_equal(train.labels(), [label for _, label in examples])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(train))[5][0], examples[5][0])
    assert len(make_source("tfds", "validation", name="tiny_trees", data_dir=str(trees))) == 5
    assert "tensorflow" not in sys.modules


def test_without_a_validation_split_some_training_examples_become_one(trees):
    options = {"name": "tiny_trees_without_validation", "data_dir": trees, "validation_share": 0.25}
    train, validation = (make_source("tfds", split, **options) for split in ("train", "validation"))
    assert (len(train), len(validation)) == (18, 6)
    shades = [shade(source[i][0]) for source in (train, validation) for i in range(len(source))]
    assert sorted(shades) == list(range(24))


def test_batches_by_a_worker(trees):
    source = make_source("tfds", "train", name="tiny_trees", data_dir=trees)
    steps = []
    for workers in (0, 1):
        batches = train_batches(source, 8, 6, seed=0, workers=workers)
        first = next(batches)
        for process in multiprocessing.active_children():  # a SIGTERM for the whole process group is none of theirs
            process.terminate()
        steps.append([first, *itertools.islice(batches, 11)])
        batches.close()
    for here, there in zip(*steps, strict=True):
        np.testing.assert_array_equal(here["images"], there["images"])
    assert sorted(image[0, 0, 0] for batch in steps[0][:4] for image in batch["images"]) == list(range(24))


def test_preparing_again_changes_nothing(trees):
    (record,) = trees.glob("tiny_trees/1.0.0/*-train.array_record*")
    before = record.stat()
    assert prepare("tiny_trees", trees).splits["train"].num_examples == 24
    assert record.stat() == before


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tiny_treez", "TFDS knows no data set of that name"),
        ("tiny_drawings", "not prepared in .*run 'var-jax data prepare --name tiny_drawings --data-dir"),
        (
            "imagenet2012",
            "put ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from .*, then run 'var-jax data prep",
        ),
        ("tiny_sounds", "no picture 'image' .they have label, sound"),
    ],
)
def test_what_is_missing_is_said_in_one_line(trees, name, said):
    with pytest.raises(InputError, match=said) as raised:
        make_source("tfds", "train", name=name, data_dir=trees)
    assert "\n" not in str(raised.value)


def test_files_that_cannot_be_read_at_random(trees, tmp_path):
    shutil.copytree(trees / "tiny_trees", tmp_path / "tiny_trees")
    info = tmp_path / "tiny_trees" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    said = "as tfrecord, which cannot be read at random; prepare it in another folder"
    with pytest.raises(InputError, match=said):
        make_source("tfds", "train", name="tiny_trees", data_dir=tmp_path)
    with pytest.raises(InputError, match=said):
        prepare("tiny_trees", tmp_path)


def test_imagenet_tells_which_files_are_missing(tmp_path):
    (tmp_path / "ILSVRC2012_img_val.tar").touch()
    with pytest.raises(InputError, match=r"put ILSVRC2012_img_train\.tar from https://image-net\.org"):
        prepare("imagenet2012", tmp_path / "data", manual_dir=tmp_path)


def test_a_package_needed_to_prepare_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # as if it were not installed
    with pytest.raises(InputError, match=r"needs the package tensorflow to prepare this data set .not to read it"):
        prepare("tiny_drawings", tmp_path)


def test_a_damaged_picture_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(tiny_tfds, "flat_picture", lambda value, mode: io.BytesIO(b"\x89PNG and then nothing"))
    prepare("tiny_trees", tmp_path)
    source = make_source("tfds", "train", name="tiny_trees", data_dir=tmp_path)
    with pytest.raises(InputError, match="tiny_trees: picture 4 in .* cannot be read"):
        source[4]
