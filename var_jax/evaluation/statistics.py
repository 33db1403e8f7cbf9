"""Statistics of features in `.npz` files, under the names of the published evaluator's reference files.

`mu` [2048] and `sigma` [2048, 2048] describe the pooled features, `mu_s` [2023] and `sigma_s` the spatial ones; the
published files also hold pictures in `arr_0`, for precision and recall.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np

from var_jax.errors import InputError
from var_jax.formats.atomic import atomic_file
from var_jax.formats.small_files import Archive, open_arrays

POOL_NAMES, SPATIAL_NAMES = ("mu", "sigma"), ("mu_s", "sigma_s")


class Statistics(NamedTuple):
    """Mean [F] and covariance [F, F] of features, float64."""

    mean: np.ndarray
    covariance: np.ndarray


def read_statistics(
    path: str | os.PathLike[str], pool: int, spatial: int
) -> tuple[Statistics | None, Statistics | None]:
    """Reads the statistics of the pooled and of the spatial features; None for those that the file lacks.

    Args:
      path: an `.npz`.
      pool, spatial: number of features per picture.

    Raises:
      InputError: if the file is damaged, or holds statistics of other features.
    """
    with open_arrays(path, "statistics of features") as archive:
        archive.check_names()
        return _read(path, archive, POOL_NAMES, pool), _read(path, archive, SPATIAL_NAMES, spatial)


def _read(path: str | os.PathLike[str], archive: Archive, names: tuple[str, str], size: int) -> Statistics | None:
    if not archive.names.intersection(names):
        return None
    mean, covariance = (archive.read(name) for name in names)
    if mean.shape != (size,) or covariance.shape != (size, size):
        raise InputError(
            f"{path}: {names[0]} {mean.shape} and {names[1]} {covariance.shape}: expected {size} numbers "
            "per picture; these are statistics of another network's features"
        )
    for name, array in zip(names, (mean, covariance), strict=True):
        if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            raise InputError(f"{path}: {name} holds something else than finite numbers; copy or make it again")
    mean, covariance = mean.astype(np.float64), covariance.astype(np.float64)
    if not _is_covariance(covariance):
        raise InputError(f"{path}: {names[1]} is no covariance: not symmetric, or not positive; copy or make it again")
    return Statistics(mean, covariance)


def _is_covariance(matrix: np.ndarray) -> bool:
    """Whether the matrix is symmetric and positive semi-definite, up to the rounding of stored statistics."""
    tolerance = 0.01 * np.abs(matrix).max() + np.finfo(np.float64).tiny
    if np.abs(matrix - matrix.T).max() > tolerance:
        return False
    try:
        np.linalg.cholesky(matrix + tolerance * np.eye(len(matrix)))
    except np.linalg.LinAlgError:
        return False
    return True


def write_statistics(path: str | os.PathLike[str], pool: Statistics, spatial: Statistics, count: int) -> None:
    """Writes a file that serves as a reference, whole or not at all; `count` is the number of pictures behind it.

    Raises:
      InputError: if the file cannot be written, or its name does not end in .npz.
    """
    if not os.fspath(path).endswith(".npz"):
        raise InputError(f"{path}: statistics are written as .npz; give a name that ends so")
    arrays = dict(zip((*POOL_NAMES, *SPATIAL_NAMES), (*pool, *spatial), strict=True))
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays, count=np.int64(count))
