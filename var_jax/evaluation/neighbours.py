"""Improved precision and recall (Kynkaanniemi et al., arXiv 1904.06991), block by block on the device."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from var_jax.parallel.mesh import batch_sharding

NEIGHBOURS = 3
BLOCK = 2048  # rows and columns of one block of distances: 16 MiB
Block = tuple[jax.Array, jax.Array, jax.Array]  # rows, the mask of the real ones, squared radii of their balls


def precision_recall(
    samples_NxD: np.ndarray,
    reference_MxD: np.ndarray,
    mesh: jax.sharding.Mesh,
    half: bool = False,
    block: int = BLOCK,
) -> tuple[float, float]:
    """Precision, the share of samples in the reference's manifold, and recall, the share of the reference in theirs.

    The manifold of a set is the union of balls around its members, each of which just reaches the member's third
    neighbour (the member itself not counted).

    Args:
      samples_NxD, reference_MxD: float32 features, more than three rows each.
      mesh: rows of a block are split over its batch axes.
      half: compute distances in float16 as the published evaluator does; figures move by some 0.003.
      block: rows at a time.
    """
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    block = -(-min(block, max(len(samples_NxD), len(reference_MxD))) // parts) * parts
    # Distances do not change when both sets move; near the origin their squares lose fewer digits.
    centre_D = np.zeros_like(reference_MxD[0]) if half else reference_MxD.mean(axis=0, dtype=np.float64)
    blocks = functools.partial(_blocks, size=block, centre_D=centre_D.astype(np.float32))
    sample_radii, reference_radii = (_radii(rows, blocks, mesh, half) for rows in (samples_NxD, reference_MxD))
    in_reference, in_samples = np.zeros(sample_radii.shape, bool), np.zeros(reference_radii.shape, bool)
    for at_row, rows, rows_valid in blocks(reference_MxD):
        rows, rows_valid = jax.device_put((rows, rows_valid), batch_sharding(mesh))
        row_block = rows, rows_valid, reference_radii[at_row]
        for at, columns, columns_valid in blocks(samples_NxD):
            hit_columns, hit_rows = _hits(row_block, (columns, columns_valid, sample_radii[at]), half)
            in_reference[at] |= np.asarray(hit_columns)
            in_samples[at_row] |= np.asarray(hit_rows)
    return float(in_reference.sum() / len(samples_NxD)), float(in_samples.sum() / len(reference_MxD))


def _blocks(rows_NxD: np.ndarray, size: int, centre_D: np.ndarray):
    """Yields (number, rows moved by the centre and padded to `size`, mask of the real rows)."""
    for number, start in enumerate(range(0, len(rows_NxD), size)):
        part = rows_NxD[start : start + size].astype(np.float32) - centre_D
        filled = np.pad(part, ((0, size - len(part)), (0, 0)))
        yield number, filled, np.arange(size) < len(part)


def _radii(rows_NxD: np.ndarray, blocks, mesh: jax.sharding.Mesh, half: bool) -> np.ndarray:
    """[blocks, size] squared distance of each row to its third neighbour; without meaning for padding."""
    radii = []
    for _, rows, _ in blocks(rows_NxD):
        # One more, since each row is found as its own neighbour.
        nearest = np.full((len(rows), NEIGHBOURS + 1), np.inf, np.float32)
        rows, nearest = jax.device_put((rows, nearest), batch_sharding(mesh))
        for _, columns, columns_valid in blocks(rows_NxD):
            before, nearest = nearest, _nearest(nearest, rows, columns, columns_valid, half)
            jax.block_until_ready(before)  # or all columns would wait in memory for their turn
        radii.append(np.asarray(nearest)[:, -1])
    return np.stack(radii)


@functools.partial(jax.jit, static_argnames="half")
def _nearest(nearest_RxK: jax.Array, rows: jax.Array, columns: jax.Array, valid: jax.Array, half: bool) -> jax.Array:
    """The smallest K of the distances so far and those to a block of columns, ascending."""
    distances = jnp.where(valid, _distances(rows, columns, half), jnp.inf)
    return -jax.lax.top_k(-jnp.concatenate([nearest_RxK, distances], axis=1), nearest_RxK.shape[1])[0]


@functools.partial(jax.jit, static_argnames="half")
def _hits(row_block: Block, column_block: Block, half: bool) -> tuple[jax.Array, jax.Array]:
    """Columns within the ball of any row, and rows within the ball of any column."""
    (rows, rows_valid, row_radii), (columns, columns_valid, column_radii) = row_block, column_block
    distances = _distances(rows, columns, half)
    real = rows_valid[:, None] & columns_valid
    near_rows = jnp.any(real & (distances <= row_radii[:, None]), axis=0)
    return near_rows, jnp.any(real & (distances <= column_radii), axis=1)


def _distances(rows: jax.Array, columns: jax.Array, half: bool) -> jax.Array:
    """[R, C] squared distances, float32."""
    if not half:
        return _squared(rows, columns)
    narrow = _squared(rows.astype(jnp.float16), columns.astype(jnp.float16)).astype(jnp.float32)
    # As in the published evaluator: float32 for a block that overflows in float16.
    return jax.lax.cond(jnp.all(jnp.isfinite(narrow)), lambda: narrow, lambda: _squared(rows, columns))


def _squared(rows: jax.Array, columns: jax.Array) -> jax.Array:
    norms = [jnp.sum(jnp.square(x), axis=1, dtype=x.dtype) for x in (rows, columns)]
    products = jnp.matmul(rows, columns.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.maximum(norms[0][:, None] - 2 * products + norms[1], 0)
