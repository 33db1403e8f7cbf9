"""The measurement of evaluation's memory, with few pictures: every figure is there."""

from __future__ import annotations

import math

from var_jax.benchmark.evaluation_memory import measure


def test_every_figure_is_measured():
    said = []
    figures = measure(40, 30, said.append)
    assert list(figures) == ["fid", "sfid", "inception_score", "precision", "recall", "peak_gib", "seconds"]
    assert all(math.isfinite(value) for value in figures.values())
    assert figures["peak_gib"] > 0.1
    assert said
