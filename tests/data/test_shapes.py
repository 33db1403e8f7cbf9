"""The drawn data set: pure in its seed, balanced, told apart by form and never by mean colour."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from var_jax.data.shapes import CLASS_NAMES, Shapes
from var_jax.data.sources import make_source
from var_jax.errors import InputError


def form_features(image):
    """What is left of a picture when its colours, its rotation and its place are taken away: [36]."""
    pixels = image.reshape(-1, 3).astype(np.float64)
    pixels -= pixels.mean(0)
    field = pixels @ np.linalg.eigh(pixels.T @ pixels)[1][:, -1]
    field /= field.std()
    field *= np.sign((field**3).mean())
    side = image.shape[0]
    spectrum = np.abs(np.fft.fft2(field.reshape(side, side)))
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side, 1 / side), np.fft.fftfreq(side, 1 / side)))
    rings = [spectrum[np.abs(frequency - k) < 0.5] for k in range(1, 13)]
    levels = np.quantile(field, np.linspace(0.02, 0.98, 12))
    return np.concatenate([levels, [np.log(r.mean()) for r in rings], [r.std() / r.mean() for r in rings]])


def nearest_neighbour_accuracy(features, labels):
    """Share of the last fifth whose nearest picture among the others has the same class."""
    features = (features - features.mean(0)) / features.std(0)
    known, asked = np.split(features, [len(features) * 4 // 5])
    nearest = np.square(asked[:, None] - known[None]).sum(-1).argmin(1)
    return np.mean(labels[nearest] == labels[len(known) :])


@pytest.fixture(scope="module")
def pictures():
    source = Shapes("train", size=32, count=1000, seed=3)
    return np.stack([source[i][0] for i in range(len(source))]), source.labels()


def test_form_tells_the_classes_apart(pictures):
    images, labels = pictures
    assert nearest_neighbour_accuracy(np.stack([form_features(image) for image in images]), labels) > 0.95


def test_mean_colour_tells_nothing(pictures):
    images, labels = pictures
    chance = 1 / len(CLASS_NAMES)
    allowed = 4 * np.sqrt(chance * (1 - chance) / (len(images) / 5))
    assert nearest_neighbour_accuracy(images.mean((1, 2)), labels) < chance + allowed


def test_mean_colour_spreads_alike_in_every_class(pictures):
    """Were it mixed from two free colours, textures that cover half the picture would be greyer than the rest."""
    images, labels = pictures
    spread = np.array([images[labels == k].mean((1, 2)).std(0).mean() for k in range(len(CLASS_NAMES))])
    assert spread.max() / spread.min() < 1.25


def test_a_picture_depends_on_seed_split_and_index_only():
    long, short = Shapes("train", size=16, count=50, seed=1), Shapes("train", size=16, count=20, seed=1)
    for i in (17, 3, 17):
        np.testing.assert_array_equal(long[i][0], short[i][0])
        np.testing.assert_array_equal(long[i][0], pickle.loads(pickle.dumps(long))[i][0])
    others = [Shapes("validation", 16, 50, 1)[3], Shapes("train", 16, 50, 2)[3], long[13]]
    assert [label for _, label in others] == [long[3][1]] * 3
    assert all(np.any(long[3][0] != other) for other, _ in others)


def test_the_scene_does_not_depend_on_the_size():
    large, small = Shapes("train", size=64, count=40), Shapes("train", size=32, count=40)
    for i in range(40):
        shrunk = large[i][0].reshape(32, 2, 32, 2, 3).mean((1, 3))
        assert np.abs(shrunk - small[i][0]).mean() < 6, CLASS_NAMES[large[i][1]]


@pytest.mark.parametrize("size", [8, 33, 128])
def test_any_size(size):
    image, _ = Shapes("train", size=size)[5]
    assert image.shape == (size, size, 3)
    assert image.dtype == np.uint8


def test_less_variety_keeps_shapes_nearer_the_middle_but_never_alike():
    def outlines(variety):
        """Where the discs lie: [N, 32, 32] False outside."""
        source = Shapes("train", size=32, count=200, seed=3, variety=variety)
        images = np.stack([source[i][0] for i in range(0, 200, 10)]).astype(np.float64)
        return np.linalg.norm(images - images[:, :1, :1], axis=-1) > 64

    spread = [outlines(variety).std(0).mean() for variety in (0.2, 1.0)]
    assert 0 < spread[0] < 0.8 * spread[1]


def test_classes_are_balanced():
    source = make_source("shapes", "validation", size=16, count=100)
    assert len(source) == 100
    assert source.class_names == CLASS_NAMES
    np.testing.assert_array_equal(np.bincount(source.labels()), 10)
    assert [source[i][1] for i in range(12)] == source.labels()[:12].tolist()
    with pytest.raises(IndexError):
        source[100]


@pytest.mark.parametrize(
    ("split", "options", "named"),
    [
        ("train", {"size": 4}, "size 4"),
        ("train", {"count": 9}, "count 9"),
        ("train", {"seed": -1}, "seed -1"),
        ("train", {"variety": 0.0}, "variety 0.0"),
        ("train", {"variety": 1.5}, "variety 1.5"),
        ("train", {"sise": 64}, "no option sise"),
        ("test", {}, "split 'test'"),
    ],
)
def test_wrong_options_are_named(split, options, named):
    with pytest.raises(InputError, match=named):
        make_source("shapes", split, **options)


def test_an_unknown_kind_is_named():
    with pytest.raises(InputError, match="kind 'circles' is unknown, expected one of shapes, folder, tfds"):
        make_source("circles", "train")
