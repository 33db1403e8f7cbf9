"""The study of evaluation's memory, with few pictures of few features: every figure is there."""

from __future__ import annotations

import math

from studies import evaluation_memory


def test_every_figure_is_measured(capsys):
    evaluation_memory.main(["--samples", "40", "--reference", "30", "--pooled", "24", "--spatial", "16"])
    lines = capsys.readouterr().out.splitlines()
    figures = {line.split()[0]: float(line.split()[1]) for line in lines[-7:]}
    assert list(figures) == ["fid", "sfid", "inception_score", "precision", "recall", "peak_gib", "seconds"]
    assert all(math.isfinite(value) for value in figures.values())
    assert figures["peak_gib"] > 0.1
    assert len(lines) > 7  # and it says how far it is
