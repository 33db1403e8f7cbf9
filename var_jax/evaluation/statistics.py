"""Statistics of features in `.npz` files, under the names of the published evaluator's reference files.

`mu` [2048] and `sigma` [2048, 2048] describe the pooled features, `mu_s` [2023] and `sigma_s` the spatial ones; the
published files also hold pictures in `arr_0`, for precision and recall.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np

from var_jax.errors import InputError
from var_jax.evaluation.pictures import open_npz
from var_jax.formats.atomic import atomic_file

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
    with open_npz(path) as archive:
        present = {name.removesuffix(".npy") for name in archive.namelist()}
    kinds = ((POOL_NAMES, pool), (SPATIAL_NAMES, spatial))
    return tuple(_read(path, names, size) if present.issuperset(names) else None for names, size in kinds)


def _read(path: str | os.PathLike[str], names: tuple[str, str], size: int) -> Statistics:
    try:
        with np.load(path, allow_pickle=False) as file:
            mean, covariance = (np.asarray(file[name], np.float64) for name in names)
    except Exception as error:  # zip, zlib and numpy each raise their own on damage
        raise InputError(f"{path}: {names[0]} or {names[1]} cannot be read ({error}); copy it again") from None
    if mean.shape != (size,) or covariance.shape != (size, size):
        raise InputError(
            f"{path}: {names[0]} {mean.shape} and {names[1]} {covariance.shape}: expected {size} numbers "
            "per picture; these are statistics of another network's features"
        )
    return Statistics(mean, covariance)


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
