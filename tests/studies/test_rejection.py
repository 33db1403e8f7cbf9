"""The study of rejection: its rows by hand, and the whole of it on the smallest model, with its table and figure."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from studies import rejection
from tests.interop.checkpoints import drawn_model, tokenizer_config, transformer_config
from var_jax.data.images import read_image
from var_jax.data.shapes import CLASS_NAMES, Shapes
from var_jax.model_directory import save_model
from var_jax.pyramid import Pyramid

PYRAMID = Pyramid((1, 2))


@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value")  # one picture has no spread
def test_rows_are_means_over_rounds_of_the_best():
    """One class, four pictures drawn: two rounds of two at a rate of a half, one picture kept of each."""
    features = np.array([[[0.0], [10.0], [2.0], [30.0]], [[0.0], [10.0], [2.0], [30.0]]])
    pool = rejection.Pool(
        scores=np.array([[0.1, 0.9, 0.8, 0.2], [0.1, 0.9, 0.8, 0.2]]),
        chooser_right=np.array([[False, True, True, False]] * 2),
        judge_right=np.array([[True, False, True, True]] * 2),
        features={"small_classifier": features},
    )
    reference = {"small_classifier": (np.array([2.0]), np.array([[0.0]]))}
    halves = rejection._row(pool, 0.5, 2, 1, reference, spread=1.0)
    assert (halves["drawn"], halves["rounds"]) == (4, 2)
    # The rounds keep the pictures 1 and 2: the judge is right about the second alone.
    assert (halves["accuracy"], halves["accuracy_by_chooser"]) == (0.5, 1.0)
    np.testing.assert_allclose(halves["frechet_small_classifier"], ((10 - 2) ** 2 + 0) / 2)
    quarter = rejection._row(pool, 0.25, 4, 1, reference, spread=1.0)
    assert (quarter["drawn"], quarter["rounds"], quarter["accuracy"]) == (8, 1, 0.0)
    everything = rejection._row(pool, 1.0, 1, 1, reference, spread=1.0)
    assert (everything["rounds"], everything["accuracy_by_chooser"]) == (4, 0.5)  # choosing lets this rise to 1


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A model with drawn weights, whose pictures of 8 px and ten classes count as those of its training."""
    tokenizer = tokenizer_config(pyramid=PYRAMID, base_channels=8, norm_groups=4, channel_multipliers=(1, 1, 1))
    parts = tokenizer, transformer_config(pyramid=PYRAMID, depth=1, num_classes=10)
    save_model(tmp_path / "model", dataclasses.replace(drawn_model(*parts), class_names=CLASS_NAMES))

    def real_pictures(directory, bundle, training, held_out):
        splits = Shapes("train", 8, training), Shapes("validation", 8, held_out)
        return [(np.stack([split[n][0] for n in range(len(split))]), split.labels()) for split in splits]

    monkeypatch.setattr(rejection, "real_pictures", real_pictures)
    return tmp_path / "model"


@pytest.mark.campaign
def test_a_small_curve(model, tmp_path):
    pytest.importorskip("matplotlib")
    files = ["--json", str(tmp_path / "curve.json"), "--out", str(tmp_path / "curve.png")]
    smallest = ["--real", "100", "--steps", "10", "--per-class", "2", "--rates", "1,0.25"]
    rejection.main(["--model", str(model), *smallest, *files])
    found = json.loads((tmp_path / "curve.json").read_text())
    assert [(row["drawn"], row["rounds"]) for row in found["rates"]] == [(20, 4), (80, 1)]
    # The chooser's own opinion of its choice cannot fall, whatever the pictures.
    assert found["rates"][1]["accuracy_by_chooser"] >= found["rates"][0]["accuracy_by_chooser"]
    assert all(row["frechet_small_classifier"] > 0 for row in found["rates"])
    lines = rejection.as_table(found).splitlines()
    assert lines[0].split(" | ")[:3] == ["| acceptance", "drawn", "accuracy"]
    assert lines[3].startswith("| 0.25 | 80 | ")
    assert len({line.count("|") for line in lines}) == 1
    assert np.asarray(read_image(tmp_path / "curve.png")).std() > 10
