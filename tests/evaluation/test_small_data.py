"""Figures of small data: distances and spreads by hand, and a whole measurement of a tiny run."""

from __future__ import annotations

import functools
import json
import math

import numpy as np

from tests.training import tiny
from var_jax.cli.main import main
from var_jax.evaluation import small_data
from var_jax.evaluation.classifier import nearest_distances, spread_within_classes
from var_jax.training.loop import train


def test_distances_and_spread_by_hand():
    pictures = np.zeros((2, 2, 2, 3), np.uint8)
    pictures[1] = 255
    np.testing.assert_allclose(nearest_distances(pictures, pictures[1:]), [1.0, 0.0], atol=1e-3)
    features = np.array([[0.0, 0.0], [2.0, 0.0], [5.0, 5.0], [9.0, 9.0]])
    assert spread_within_classes(features, np.array([0, 0, 1, 2])) == 1.0  # classes of one picture say nothing


def test_a_tiny_run_is_measured(tmp_path, monkeypatch, capsys):
    train(tiny.tokenizer(), str(tmp_path / "tokenizer"))
    train(tiny.transformer(tmp_path / "tokenizer"), str(tmp_path / "transformer"))
    quick = functools.partial(small_data.train_classifier, steps=30)
    monkeypatch.setattr(small_data, "train_classifier", quick)
    options = ["--samples", "60", "--real", "200", "--counted", "150", "--json", str(tmp_path / "measured.json")]
    assert main(["measure", "--model", str(tmp_path / "transformer"), *options]) == 0
    figures = json.loads((tmp_path / "measured.json").read_text())
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines()[-len(figures) :])
    assert {name: float(value) for name, value in printed.items()} == {k: round(v, 4) for k, v in figures.items()}
    assert 0 <= figures["class_accuracy"] <= 1
    assert figures["spread"] > 0
    assert figures["nearest"] > 0
    assert 10 < figures["psnr_of_mean_fill"] < 25
    # Six steps in, the loss is still near a uniform guess's, and inputs are hardly listened to.
    assert abs(figures["held_out_loss"] - math.log(16)) < 0.3
    assert abs(figures["shuffled_input_loss"] - figures["held_out_loss"]) < 0.1
    assert 0 < figures["unigram_loss"] < math.log(16)
