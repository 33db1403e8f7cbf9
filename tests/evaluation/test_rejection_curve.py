"""The benchmark of rejection: its rows by hand, and a whole small curve with its table and figure."""

from __future__ import annotations

import numpy as np
import pytest

from var_jax.benchmark import rejection
from var_jax.benchmark.rejection import as_table, curve, plot
from var_jax.data.images import read_image


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
    (quarter,) = [rejection._row(pool, 0.25, 4, 1, reference, spread=1.0)]
    assert (quarter["drawn"], quarter["rounds"], quarter["accuracy"]) == (8, 1, 0.0)


def test_a_small_curve(tiny_run, tmp_path):
    found = curve(tiny_run / "transformer", 2, (1.0, 0.25), real=200, steps=20, say=lambda text: None)
    assert [(row["drawn"], row["rounds"]) for row in found["rates"]] == [(20, 4), (80, 1)]
    # What the chooser thinks of what it chose can only rise, whatever the pictures.
    assert found["rates"][1]["accuracy_by_chooser"] > found["rates"][0]["accuracy_by_chooser"]
    assert all(row["frechet_small_classifier"] > 0 for row in found["rates"])
    lines = as_table(found).splitlines()
    assert lines[0].split(" | ")[:3] == ["| acceptance", "drawn", "accuracy"]
    assert lines[3].startswith("| 0.25 | 80 | ")
    assert len({line.count("|") for line in lines}) == 1
    pytest.importorskip("matplotlib")
    plot(found, tmp_path / "curve.png")
    assert np.asarray(read_image(tmp_path / "curve.png")).std() > 10
