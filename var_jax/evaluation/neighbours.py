"""Improved precision and recall (Kynkaanniemi et al., arXiv 1904.06991), block by block on the device."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from var_jax.parallel.mesh import batch_sharding

NEIGHBOURS = 3
BLOCK = 2048  # rows on either side of one block of distances: 16 MiB of them


def precision_recall(
    samples_NxD: np.ndarray,
    reference_MxD: np.ndarray,
    mesh: jax.sharding.Mesh,
    half: bool = False,
    neighbours: int = NEIGHBOURS,
    block: int = BLOCK,
) -> tuple[float, float]:
    """The share of samples within the reference's manifold, and of the reference within that of the samples.

    The manifold of a set is all within a ball around any of its members that just holds its third neighbour, the
    member itself not counted.

    Args:
      samples_NxD, reference_MxD: float32 features, each more than `neighbours`.
      mesh: rows of a block are split over its batch axes.
      half: compute distances in float16 as the published evaluator does; figures move by some 0.003.
      neighbours: which neighbour a ball reaches to.
      block: rows at a time.
    """
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    block = -(-min(block, max(len(samples_NxD), len(reference_MxD))) // parts) * parts
    # Distances do not change when both sets move; around the origin their squares lose fewer digits.
    centre_D = np.zeros_like(reference_MxD[0]) if half else reference_MxD.mean(axis=0, dtype=np.float64)
    blocks = functools.partial(_blocks, size=block, centre_D=centre_D.astype(np.float32))
    radii = [_radii(rows, blocks, mesh, neighbours, half) for rows in (samples_NxD, reference_MxD)]
    in_reference, in_samples = np.zeros(len(samples_NxD), bool), np.zeros(len(reference_MxD), bool)
    for at_row, rows, rows_valid in blocks(reference_MxD):
        rows, rows_valid = _split((rows, rows_valid), mesh)
        for at, columns, valid in blocks(samples_NxD):
            column_radii, row_radii = (_part(r, a, block) for r, a in zip(radii, (at, at_row), strict=True))
            hit_columns, hit_rows = _hits(rows, row_radii, rows_valid, columns, column_radii, valid, half)
            _note(in_reference, at, hit_columns)
            _note(in_samples, at_row, hit_rows)
    return float(in_reference.mean()), float(in_samples.mean())


def _blocks(rows_NxD: np.ndarray, size: int, centre_D: np.ndarray):
    """(start, rows moved by the centre and filled up to `size`, which of them are real)."""
    for start in range(0, len(rows_NxD), size):
        part = rows_NxD[start : start + size].astype(np.float32) - centre_D
        filled = np.pad(part, ((0, size - len(part)), (0, 0)))
        yield start, filled, np.arange(size) < len(part)


def _split(arrays, mesh: jax.sharding.Mesh):
    return jax.device_put(arrays, batch_sharding(mesh))


def _part(values_N: np.ndarray, start: int, size: int) -> np.ndarray:
    part = values_N[start : start + size]
    return np.pad(part, (0, size - len(part)))


def _note(found_N: np.ndarray, start: int, hits: jax.Array) -> None:
    part = found_N[start : start + len(hits)]
    part |= np.asarray(hits)[: len(part)]


def _radii(rows_NxD: np.ndarray, blocks, mesh: jax.sharding.Mesh, neighbours: int, half: bool) -> np.ndarray:
    """[N] squared distance of each row to its third neighbour."""
    radii = np.zeros(len(rows_NxD), np.float32)
    for start, rows, valid in blocks(rows_NxD):
        # One more than wanted, since each row is found as its own neighbour.
        nearest = np.full((len(rows), neighbours + 1), np.inf, np.float32)
        rows, nearest = _split((rows, nearest), mesh)
        for _, columns, columns_valid in blocks(rows_NxD):
            before, nearest = nearest, _nearest(nearest, rows, columns, columns_valid, half)
            jax.block_until_ready(before)  # or all columns would wait in memory for their turn
        count = int(valid.sum())
        radii[start : start + count] = np.asarray(nearest)[:count, -1]
    return radii


@functools.partial(jax.jit, static_argnames="half")
def _nearest(nearest_RxK: jax.Array, rows: jax.Array, columns: jax.Array, valid: jax.Array, half: bool) -> jax.Array:
    """The smallest K of those so far and the distances to a block of columns, ascending."""
    distances = jnp.where(valid, _distances(rows, columns, half), jnp.inf)
    return -jax.lax.top_k(-jnp.concatenate([nearest_RxK, distances], axis=1), nearest_RxK.shape[1])[0]


@functools.partial(jax.jit, static_argnames="half")
def _hits(
    rows: jax.Array,
    row_radii: jax.Array,
    rows_valid: jax.Array,
    columns: jax.Array,
    column_radii: jax.Array,
    columns_valid: jax.Array,
    half: bool,
) -> tuple[jax.Array, jax.Array]:
    """Columns within the ball of any row, and rows within the ball of any column."""
    distances = _distances(rows, columns, half)
    real = rows_valid[:, None] & columns_valid
    near_rows = jnp.any(real & (distances <= row_radii[:, None]), axis=0)
    return near_rows, jnp.any(real & (distances <= column_radii), axis=1)


def _distances(rows: jax.Array, columns: jax.Array, half: bool) -> jax.Array:
    """[R, C] squared distances, float32."""
    if not half:
        return _squared(rows, columns)
    narrow = _squared(rows.astype(jnp.float16), columns.astype(jnp.float16)).astype(jnp.float32)
    # As the published evaluator: float32 for a block that float16 overflows in.
    return jax.lax.cond(jnp.all(jnp.isfinite(narrow)), lambda: narrow, lambda: _squared(rows, columns))


def _squared(rows: jax.Array, columns: jax.Array) -> jax.Array:
    norms = [jnp.sum(jnp.square(x), axis=1, dtype=x.dtype) for x in (rows, columns)]
    products = jnp.matmul(rows, columns.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.maximum(norms[0][:, None] - 2 * products + norms[1], 0)
