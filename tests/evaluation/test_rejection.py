"""Rejection sampling: what is drawn and kept, any classifier, and the command on a tiny run."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
from PIL import Image

from var_jax.bundle import load
from var_jax.cli.main import main
from var_jax.data.images import read_image
from var_jax.errors import InputError
from var_jax.evaluation import rejection
from var_jax.evaluation.rejection import Chooser, Rejection, drawn_for, imagenet_chooser, model_draws
from var_jax.generation.batching import class_keys
from var_jax.generation.pictures import to_uint8
from var_jax.pretrained.efficientnet import ImageNetClassifier

CHOOSER = Chooser("a fake", None, 0.9, "nothing")


def draw(labels, indices):
    """A picture of two pixels that says its class and index."""
    pictures = np.zeros((len(labels), 1, 2, 3), np.uint8)
    pictures[:, 0, 0], pictures[:, 0, 1] = labels[:, None], indices[:, None]
    return pictures


def probabilities(images):
    """Surer of a class the nearer a picture's index is to 3; class 2 looks like class 0 from index 4 on."""
    labels, indices = images[:, 0, 0, 0].astype(int), images[:, 0, 1, 0].astype(float)
    p = np.full((len(images), 3), 0.01)
    p[np.arange(len(images)), labels] = 1 - np.abs(indices - 3) / 20
    p[(labels == 2) & (indices >= 4), 0] = 2
    return p


@pytest.mark.parametrize("batch", [1, 3, 8, 100])
def test_the_best_of_each_class_are_kept(batch):
    sampling = Rejection(draw, probabilities, per_class=2, acceptance=0.25, batch=batch)
    kept = list(sampling.keep([2, 0]))
    assert [part.label for part in kept] == [2, 0]
    for part in kept:
        assert part.indices.tolist() == [3, 2]  # of 2 and 4, which are equally likely, the first drawn
        np.testing.assert_array_equal(part.images, draw(np.full(2, part.label), part.indices))
        np.testing.assert_allclose(part.scores, [1.0, 0.95])
        assert part.right.all()
    assert sampling.report(CHOOSER) == {
        "acceptance_rate": 0.25,
        "drawn": 16,
        "kept": 4,
        "classifier": "a fake",
        "classifier_accuracy": 0.9,
        "classifier_accuracy_of": "nothing",
        "class_accuracy_drawn": 12 / 16,  # four pictures of class 2 look like class 0
        "class_accuracy_kept": 1.0,
    }


def test_how_many_are_drawn():
    assert [drawn_for(50, a) for a in (1.0, 0.5, 0.3, 0.05)] == [50, 100, 167, 1000]
    assert drawn_for(3, 0.3) == 10  # 3 / 0.3 is a little above 10 in floating point
    for acceptance in (0.0, 1.1, float("nan")):
        with pytest.raises(InputError, match="acceptance rate .*: expected above 0 and at most 1"):
            drawn_for(5, acceptance)
    with pytest.raises(InputError, match="0 pictures per class"):
        drawn_for(0, 0.5)


def test_all_are_kept_at_an_acceptance_of_one():
    (kept,) = Rejection(draw, probabilities, 5, 1.0).keep([1])
    assert sorted(kept.indices.tolist()) == [0, 1, 2, 3, 4]


def test_wrong_classifiers_and_classes_are_named():
    with pytest.raises(InputError, match="expected each one once"):
        next(Rejection(draw, probabilities, 1, 1.0).keep([1, 1]))
    with pytest.raises(InputError, match=r"gave an array of shape \(1, 3\) for 1 pictures, .* at least 4 classes"):
        next(Rejection(draw, lambda images: np.zeros((len(images), 3)), 1, 1.0).keep([3]))
    with pytest.raises(InputError, match="not finite"):
        next(Rejection(draw, lambda images: np.full((len(images), 3), np.nan), 1, 1.0).keep([0]))
    with pytest.raises(InputError, match="knows ImageNet's 1000 classes, the model has 10"):
        imagenet_chooser("a.pth", 10)


@pytest.mark.campaign
def test_the_command_on_a_tiny_run(tiny_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(rejection, "train_classifier", functools.partial(rejection.train_classifier, steps=30))
    model, out = str(tiny_run / "transformer"), tmp_path / "kept"
    wanted = ["reject", "--model", model, "--classes", "3,7", "--per-class", "2", "--accept", "0.25", "--batch", "8"]
    assert main([*wanted, "--out", str(out)]) == 0
    assert "held-out real pictures of the same data set" in capsys.readouterr().out
    report = json.loads((out / "rejection.json").read_text())
    assert (report["drawn"], report["kept"], report["acceptance_rate"]) == (16, 4, 0.25)
    assert 0 <= report["classifier_accuracy"] <= 1
    assert report["classifier"].startswith("small classifier trained on")
    assert [entry["class"] for entry in report["pictures"]] == [3, 3, 7, 7]
    # Names sort so that classes take turns, and a kept picture is the one that its index draws.
    assert sorted(file.name for file in out.glob("*.png")) == [f"0000{n}_000{c}.png" for n in (0, 1) for c in (3, 7)]
    first = report["pictures"][0]
    bundle = load(model)
    settings = {"guidance": 1.5, "top_k": 900, "top_p": 0.96}
    alone = to_uint8(bundle.generate([3], class_keys(0, [3], [first["index"]]), **settings))[0]
    np.testing.assert_allclose(np.asarray(read_image(out / first["file"]), int), alone, atol=1)
    again = model_draws(bundle, 0, **settings)(np.array([3]), np.array([first["index"]]))[0]
    np.testing.assert_array_equal(again, alone)


def test_the_built_in_classifier_names_where_its_accuracy_is_from(tmp_path, monkeypatch):
    """A fake with two classes: dark and bright."""
    bright = lambda images: np.stack([255.0 - images.mean((1, 2, 3)), images.mean((1, 2, 3))], axis=1) / 255
    fake = lambda images: (bright(images), None)
    fake.name = "fake"
    monkeypatch.setattr(ImageNetClassifier, "from_file", classmethod(lambda cls, path: fake))
    monkeypatch.setattr(rejection.efficientnet, "NUM_CLASSES", 2)
    told = imagenet_chooser("a.pth", 2)
    assert (told.accuracy, told.accuracy_of) == (0.751, "ImageNet's validation pictures, as published: not measured")
    for name, level in (("a", 10), ("b", 240)):
        for number, wrong in enumerate((0, 0, 0, 1)):  # of four pictures of a class one looks like the other class
            for split in ("train", "val"):
                (tmp_path / split / name).mkdir(parents=True, exist_ok=True)
                picture = np.full((40, 50, 3), 250 - level if wrong else level, np.uint8)
                Image.fromarray(picture).save(tmp_path / split / name / f"{number}.png")
    measured = imagenet_chooser("a.pth", 2, tmp_path)
    assert measured.accuracy == 0.75
    assert measured.accuracy_of == f"8 pictures of {tmp_path}"
    monkeypatch.setattr(rejection.efficientnet, "NUM_CLASSES", 3)
    with pytest.raises(InputError, match="has 2 classes, expected ImageNet's 3"):
        imagenet_chooser("a.pth", 3, tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--accept", "0"], "acceptance rate 0.0: expected above 0"),
        (["--batch", "0"], "--batch 0: expected 1 or more"),
        (["--seed", "-1"], "--seed -1: expected 0 to"),
        (["--classes", "none"], "expected classes known to a classifier"),
        (["--held-out", "somewhere"], "--held-out: belongs to a classifier from a file"),
        (["--classifier", "lite0.pth"], "knows ImageNet's 1000 classes, the model has 10"),
    ],
)
def test_what_cannot_be_is_refused_before_the_work(tiny_run, tmp_path, capsys, options, message):
    model = str(tiny_run / "transformer")
    assert main(["reject", "--model", model, *options, "--out", str(tmp_path / "kept")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "kept").exists()
