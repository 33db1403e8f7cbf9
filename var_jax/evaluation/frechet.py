"""The Frechet distance between two normal distributions, and the mean and covariance of features, in float64.

The features decide its name: FID is this distance on Inception's features and on no others.
"""

from __future__ import annotations

import numpy as np

from var_jax.errors import InputError


def frechet_distance(mean1_F: np.ndarray, cov1_FxF: np.ndarray, mean2_F: np.ndarray, cov2_FxF: np.ndarray) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) (Heusel et al., arXiv 1706.08500, equation 6).

    Covariances are symmetric. The trace of the root is that of (A S2 A)^(1/2) with A = S1^(1/2): a symmetric matrix,
    whose eigenvalues are real and, but for rounding, not negative. So covariances of fewer pictures than features need
    no special treatment.

    Raises:
      InputError: if the shapes do not match, or a number is not finite.
    """
    means, covs = ([np.asarray(x, np.float64) for x in pair] for pair in ((mean1_F, mean2_F), (cov1_FxF, cov2_FxF)))
    size = means[0].size
    shapes = [array.shape for array in (*means, *covs)]
    if shapes != [(size,)] * 2 + [(size, size)] * 2:
        raise InputError(f"statistics of shapes {', '.join(map(str, shapes))}: expected twice [F] and twice [F, F]")
    if not all(np.isfinite(array).all() for array in (*means, *covs)):
        raise InputError("statistics hold a number that is not finite: expected finite means and covariances")
    values, vectors = np.linalg.eigh(covs[0])
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    between = root @ covs[1] @ root
    values = np.linalg.eigvalsh((between + between.T) / 2)
    trace_of_root = np.sqrt(np.maximum(values, 0.0)).sum()
    return float(np.sum((means[0] - means[1]) ** 2) + np.trace(covs[0]) + np.trace(covs[1]) - 2.0 * trace_of_root)


def frechet_between(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> float:
    """The Frechet distance of two sets by their (mean, covariance); 0 where rounding leaves it a little below."""
    return max(frechet_distance(*a, *b), 0.0)


def mean_and_covariance(features_NxF: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [F] and covariance [F, F] (over N - 1) of the rows, float64.

    Raises:
      InputError: for fewer than two rows.
    """
    moments = Moments()
    moments.add(features_NxF)
    return moments.mean_and_covariance()


class Moments:
    """Mean and covariance of features that arrive batch by batch: F^2 numbers are kept, and no features."""

    def __init__(self) -> None:
        """Starts with no rows."""
        self.count = 0
        self._mean_F: np.ndarray | None = None
        self._scatter_FxF: np.ndarray | None = None

    def add(self, features_NxF: np.ndarray) -> None:
        """Adds the rows of a batch, which may have any length.

        Raises:
          InputError: if the batch is not [N, F] with the F of the previous batches.
        """
        rows = np.asarray(features_NxF, np.float64)
        if rows.ndim != 2 or (self._mean_F is not None and rows.shape[1] != len(self._mean_F)):
            wanted = "[N, F]" if self._mean_F is None else f"[N, {len(self._mean_F)}]"
            raise InputError(f"features of shape {rows.shape}: expected {wanted}")
        if not len(rows):
            return
        mean = rows.mean(axis=0)
        centred = rows - mean
        scatter, total = centred.T @ centred, self.count + len(rows)
        if self._mean_F is None:
            self._mean_F, self._scatter_FxF = mean, scatter
        else:  # two sets' scatters about their own means, plus that between the means (Chan et al. 1979)
            apart = mean - self._mean_F
            self._scatter_FxF += scatter + np.outer(apart, apart) * (self.count * len(rows) / total)
            self._mean_F = self._mean_F + apart * (len(rows) / total)
        self.count = total

    def mean_and_covariance(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean [F] and covariance [F, F] (over N - 1) of all rows so far, float64.

        Raises:
          InputError: for fewer than two rows.
        """
        if self.count < 2:
            raise InputError(f"{self.count} rows of features have no covariance: expected two pictures or more")
        return self._mean_F, self._scatter_FxF / (self.count - 1)
