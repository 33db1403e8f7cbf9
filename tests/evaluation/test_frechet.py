"""The Frechet distance where it is known, and moments of batches beside numpy's of the whole."""

from __future__ import annotations

import numpy as np
import pytest

from var_jax.errors import InputError
from var_jax.evaluation.frechet import Moments, frechet_distance, mean_and_covariance


def test_distances_that_are_known():
    rng = np.random.default_rng(0)
    # Diagonal covariances: sum of (m1 - m2)^2 + (sqrt s1 - sqrt s2)^2.
    m, s = rng.normal(size=(2, 5)), rng.uniform(0.1, 3, (2, 5))
    by_hand = np.sum((m[0] - m[1]) ** 2 + (np.sqrt(s[0]) - np.sqrt(s[1])) ** 2)
    np.testing.assert_allclose(frechet_distance(m[0], np.diag(s[0]), m[1], np.diag(s[1])), by_hand, rtol=1e-12)
    # 2 x 2: tr (S1 S2)^(1/2) = sqrt(tr(S1 S2) + 2 sqrt(det(S1 S2))), whatever the axes.
    a, b = (x @ x.T for x in rng.normal(size=(2, 2, 2)))
    root = np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a @ b)))
    np.testing.assert_allclose(
        frechet_distance(np.zeros(2), a, np.zeros(2), b), np.trace(a) + np.trace(b) - 2 * root, rtol=1e-10
    )


def test_fewer_pictures_than_features():
    rng = np.random.default_rng(1)
    few, many = rng.normal(size=(6, 20)), rng.normal(size=(400, 20))
    np.testing.assert_allclose(frechet_distance(*mean_and_covariance(few), *mean_and_covariance(few)), 0.0, atol=1e-6)
    one, other = (frechet_distance(*a, *b) for a, b in _both_ways(mean_and_covariance(few), mean_and_covariance(many)))
    np.testing.assert_allclose(one, other, rtol=1e-7)
    assert one > 5


def _both_ways(a, b):
    return (a, b), (b, a)


def test_moments_of_batches_are_those_of_the_whole():
    rows = np.random.default_rng(2).normal(1e3, 1e-2, (57, 7)).astype(np.float32)  # far from zero: sums would cancel
    moments = Moments()
    for part in np.split(rows, [1, 20, 20, 56]):
        moments.add(part)
    mean, covariance = moments.mean_and_covariance()
    np.testing.assert_allclose(mean, rows.astype(np.float64).mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(covariance, np.cov(rows.astype(np.float64), rowvar=False), rtol=1e-9, atol=1e-15)
    assert moments.count == 57


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="1 rows of features have no covariance"):
        mean_and_covariance(np.zeros((1, 3)))
    with pytest.raises(InputError, match=r"features of shape \(4,\): expected \[N, F\]"):
        mean_and_covariance(np.zeros(4))
    moments = Moments()
    moments.add(np.zeros((2, 3)))
    with pytest.raises(InputError, match=r"features of shape \(2, 4\): expected \[N, 3\]"):
        moments.add(np.zeros((2, 4)))
    with pytest.raises(InputError, match=r"statistics of shapes \(2,\), \(3,\)"):
        frechet_distance(np.zeros(2), np.eye(2), np.zeros(3), np.eye(3))
    with pytest.raises(InputError, match="not finite"):
        frechet_distance(np.zeros(2), np.eye(2), np.zeros(2), np.eye(2) * np.nan)
