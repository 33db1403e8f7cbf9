"""Figures from features: against torch-fidelity's, against the formulas spelled out, and the traps that they meet."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from var_jax.evaluation.frechet import frechet_distance, mean_and_covariance
from var_jax.evaluation.inception_score import InceptionScore
from var_jax.evaluation.neighbours import precision_recall
from var_jax.parallel.mesh import make_mesh


def mesh(devices: int) -> jax.sharding.Mesh:
    return make_mesh(devices=jax.devices()[:devices])


def scored(logits: np.ndarray, split_size: int, block: int = 10**9):
    score = InceptionScore(len(logits), split_size)
    for start in range(0, len(logits), block):
        score.add(logits[start : start + block])
    return score.score()


def test_frechet_distance(golden):
    arrays = golden("metrics")
    a, b = (mean_and_covariance(arrays[f"features_{name}"]) for name in "ab")
    distance = frechet_distance(*a, *b)
    assert abs(distance - float(arrays["fid"])) < 1e-4


def test_inception_score(golden):
    arrays = golden("metrics")
    logits, splits = arrays["logits"], int(arrays["inception_score_splits"])
    for block in (2000, 130):
        found = scored(logits, len(logits) // splits, block)
        assert found.splits == splits
        assert abs(found.in_order - float(arrays["inception_score"])) < 1e-5
    # Shuffled means: the rows in torch-fidelity's order, then scored as they come.
    order = np.random.RandomState(2020).permutation(len(logits))
    assert abs(found.shuffled - scored(logits[order], len(logits) // splits).in_order) < 1e-9


def test_the_last_split_has_what_is_left(golden):
    logits = golden("metrics")["logits"][:450]
    parts = [scored(part, 10**9).in_order for part in (logits[:200], logits[200:400], logits[400:])]
    found = scored(logits, 200)
    assert found.splits == 3
    assert abs(found.in_order - np.mean(parts)) < 1e-9
    assert abs(found.in_order_std - np.std(parts)) < 1e-9


def test_trap_class_order():
    """Pictures of 40 classes one class after another: the score in file order collapses, and that is noticed."""
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(40), 50)
    logits = 6 * np.eye(40)[labels] + rng.standard_normal((2000, 40))
    ordered, mixed = scored(logits, 200), scored(logits[rng.permutation(2000)], 200)
    assert ordered.in_order < 0.3 * ordered.shuffled
    assert abs(mixed.in_order - ordered.shuffled) < 0.05 * mixed.in_order
    assert (ordered.class_ordered, mixed.class_ordered) == (True, False)
    turns = scored(logits[np.arange(2000).reshape(40, 50).T.ravel()], 200)  # classes in turn: each split has all
    assert not turns.class_ordered
    assert abs(turns.in_order - ordered.shuffled) < 0.1 * turns.in_order
    # Fewer pictures than a split: the score does not suffer, and the order is noticed all the same.
    assert scored(logits, 5000).class_ordered
    assert not scored(np.zeros((100, 10)), 50).class_ordered


@pytest.mark.parametrize("block", [2048, 128])
def test_precision_and_recall(golden, block):
    arrays = golden("metrics")
    samples = arrays["features_a"][: int(arrays["pr_rows_a"])]
    reference = arrays["features_b"][: int(arrays["pr_rows_b"])]
    found = precision_recall(samples, reference, mesh(1), block=block)
    # torch-fidelity divides in float32, so its figures are counts over 600 and 700.
    assert np.round(np.multiply(found, (600, 700)), 6).tolist() == [428, 444]
    assert np.allclose(found, (arrays["precision"], arrays["recall"]), atol=1e-7)
    assert precision_recall(samples, reference, mesh(8), block=block) == found


def test_trap_padding_rows():
    """Rows that fill up a block lie at the origin, in the middle of everything, and must not count."""
    rng = np.random.default_rng(2)
    samples, reference = (rng.standard_normal((n, 6)).astype(np.float32) for n in (37, 53))
    balls = []
    for rows in (samples, reference):
        distances = np.sum((rows[:, None] - rows).astype(np.float64) ** 2, axis=-1)
        balls.append(np.sort(distances, axis=1)[:, 3])
    across = np.sum((samples[:, None] - reference).astype(np.float64) ** 2, axis=-1)
    expected = (across <= balls[1]).any(axis=1).mean(), (across <= balls[0][:, None]).any(axis=0).mean()
    for block in (16, 64):
        assert precision_recall(samples, reference, mesh(8), block=block) == pytest.approx(expected)


def test_distances_in_half_precision(golden):
    """As the published evaluator computes them: close, not equal, and float32 where float16 overflows."""
    arrays = golden("metrics")
    # Away from the origin, where Inception's features lie, squares are large and float16's steps coarse.
    samples, reference = arrays["features_a"][:300] + 2, arrays["features_b"][:300] + 2
    single, half = (precision_recall(samples, reference, mesh(1), half=half) for half in (False, True))
    assert 0 < np.abs(np.subtract(half, single)).max() < 0.1
    overflowing = precision_recall(100 * samples, 100 * reference, mesh(1), half=True)
    assert np.allclose(overflowing, single, atol=0.004)
