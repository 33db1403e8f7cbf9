"""Figures of small data: distances and spreads by hand, and a whole measurement of a tiny run."""

from __future__ import annotations

import functools
import json
import math

import numpy as np
import pytest

from var_jax.bundle import load
from var_jax.cli.main import main
from var_jax.errors import InputError
from var_jax.evaluation import small_data
from var_jax.evaluation.classifier import nearest_distances, spread_within_classes
from var_jax.evaluation.small_data import frechet_figures, real_pictures
from var_jax.pretrained.efficientnet import ImageNetClassifier


def test_distances_and_spread_by_hand():
    pictures = np.zeros((2, 2, 2, 3), np.uint8)
    pictures[1] = 255
    np.testing.assert_allclose(nearest_distances(pictures, pictures[1:]), [1.0, 0.0], atol=1e-3)
    features = np.array([[0.0, 0.0], [2.0, 0.0], [5.0, 5.0], [9.0, 9.0]])
    assert spread_within_classes(features, np.array([0, 0, 1, 2])) == 1.0  # classes of one picture say nothing


def test_frechet_figures_compare_equally_many_of_every_class():
    """Real pictures in order of class: what is left out is left out evenly."""
    rng = np.random.default_rng(0)

    def pictures(count, shift):  # two classes, dark and bright
        means = np.where(np.arange(count) < count // 2, 60, 180)[:, None, None, None]
        return np.clip(rng.normal(means + shift, 20, (count, 4, 4, 3)), 0, 255).astype(np.uint8)

    seen = []

    def features_of(images):
        seen.append(images)
        return np.zeros((len(images), 2)), images.reshape(len(images), -1).astype(np.float32)[:, :6] / 255

    figures = frechet_figures("toy", features_of, pictures(80, 25), pictures(3000, 0), pictures(100, 0))
    assert [len(images) for images in seen] == [2000, 80, 80]
    assert all(abs(np.mean(images.mean(axis=(1, 2, 3)) > 130) - 0.5) < 0.05 for images in seen)
    assert set(figures) == {"frechet_toy", "frechet_toy_held_out"}
    assert figures["frechet_toy"] > 4 * figures["frechet_toy_held_out"] > 0


@pytest.mark.campaign
def test_a_tiny_run_is_measured(tiny_run, tmp_path, monkeypatch, capsys):
    quick = functools.partial(small_data.train_classifier, steps=30)
    monkeypatch.setattr(small_data, "train_classifier", quick)
    options = ["--samples", "60", "--real", "200", "--counted", "150", "--json", str(tmp_path / "measured.json")]
    assert main(["measure", "--model", str(tiny_run / "transformer"), *options]) == 0
    figures = json.loads((tmp_path / "measured.json").read_text())
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines()[-len(figures) :])
    assert {name: float(value) for name, value in printed.items()} == {k: round(v, 4) for k, v in figures.items()}
    assert 0 <= figures["class_accuracy"] <= 1
    assert figures["spread"] > 0
    assert figures["nearest"] > 0
    assert figures["frechet_small_classifier"] > figures["frechet_small_classifier_held_out"] > 0
    assert not any("efficientnet" in name for name in figures)
    assert 10 < figures["psnr_of_mean_fill"] < 25
    # Six steps in, the loss is still near a uniform guess's, and inputs are hardly listened to.
    assert abs(figures["held_out_loss"] - math.log(16)) < 0.3
    assert abs(figures["shuffled_input_loss"] - figures["held_out_loss"]) < 0.1
    assert 0 < figures["unigram_loss"] < math.log(16)
    # A wrong file is refused before the work; a tokenizer's run has no classes to judge.
    (tmp_path / "wrong.pth").write_bytes(b"no weights")
    wrong = ["--model", str(tiny_run / "transformer"), "--efficientnet", str(tmp_path / "wrong.pth")]
    assert main(["measure", *wrong]) == 2
    assert "wrong.pth: not a file of tensors" in capsys.readouterr().err
    with pytest.raises(InputError, match="is a tokenizer's run; give the transformer's"):
        real_pictures(tiny_run / "tokenizer", load(tiny_run / "tokenizer"), 10, 10)


def test_the_built_in_classifier_s_features_have_a_figure_of_their_own(tiny_run, monkeypatch):
    fake = lambda images: (np.zeros((len(images), 1000)), images.reshape(len(images), -1)[:, :5].astype(np.float32))
    monkeypatch.setattr(ImageNetClassifier, "from_file", classmethod(lambda cls, path: fake))
    monkeypatch.setattr(small_data, "train_classifier", functools.partial(small_data.train_classifier, steps=5))
    figures = small_data.measure(tiny_run / "transformer", 40, real=100, counted=20, efficientnet="a.pth")
    assert figures["frechet_efficientnet_lite0"] > figures["frechet_efficientnet_lite0_held_out"] > 0
