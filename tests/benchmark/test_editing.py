"""The benchmark of editing: its figures on a trained run of the smallest models, and its own parts."""

from __future__ import annotations

import numpy as np

from var_jax.benchmark import editing
from var_jax.pyramid import Pyramid

PYRAMID = Pyramid((1, 2, 4, 8))


def test_the_references_mask():
    """Bilinear sampling of the finest grid, and the coarsest scale whatever is masked."""
    boxes = np.zeros((2, 16, 16), bool)
    boxes[0, :8, :8] = True
    boxes[1] = True
    kept = editing.reference_kept(boxes, PYRAMID)
    by_scale = [kept[0, PYRAMID.slice(k)].reshape(side, side) for k, side in enumerate(PYRAMID.sides)]
    for side, scale in zip(PYRAMID.sides[1:], by_scale[1:], strict=True):
        expected = np.ones((side, side), bool)
        expected[: side // 2, : side // 2] = False
        np.testing.assert_array_equal(scale, expected)
    assert kept[:, 0].all()
    assert not kept[1, 1:].any()


def test_boxes_lie_in_the_picture_and_differ():
    boxes = editing.random_boxes(40, 32)
    shares = boxes.mean(axis=(1, 2))
    assert np.all((shares >= 1 / 16) & (shares <= 1 / 4))
    assert len({box.tobytes() for box in boxes}) > 30
    np.testing.assert_array_equal(editing.random_boxes(40, 32), boxes)


def test_intervals_hold_the_mean_nineteen_times_in_twenty():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        mean, low, high = editing.interval(rng.normal(3.0, 1.0, 50))
        assert low < mean < high
        inside += low < 3.0 < high
    assert 0.88 <= inside / 200 <= 0.99
