"""The Inception network of 2015-12-05, which defines FID, sFID, Inception score, precision and recall.

It is not the Inception-v3 of today's libraries. The published graph resizes without half-pixel centres and without
antialiasing, its average pools do not count padding, its last block pools by the maximum, and it has 1008 outputs
(Szegedy et al., arXiv 1512.00567; the graph `classify_image_graph_def.pb`, ported as
`pt_inception-2015-12-05-6726825d.pth`). All computing is float32 at the highest precision.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from var_jax.models.parameters import Params

SIDE = 299  # pixels; the graph resizes pictures to it
POOL, OUTPUTS = 2048, 1008
SPATIAL_CHANNELS = 7  # channels of the 17 x 17 map that sFID uses
SPATIAL = 17 * 17 * SPATIAL_CHANNELS
EPSILON = 1e-3  # in the batch norms
_HIGHEST = jax.lax.Precision.HIGHEST


class Conv(NamedTuple):
    """A convolution, its batch norm and ReLU.

    Attributes:
      name: name within its block.
      width: output channels.
      kernel: height and width.
      stride: stride of both axes; with 2 nothing is padded.
      padded: whether padding keeps the size; no effect with stride 2.
    """

    name: str
    width: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padded: bool = True


class Pool(NamedTuple):
    """3 x 3 pooling: "average" (padding not counted) or "max"; stride 1 keeps the size, stride 2 pads nothing."""

    kind: str
    stride: int = 1


# Convolutions of the same input whose outputs are joined.
Fork = tuple[Conv, ...]
Branch = tuple[Conv | Pool | Fork, ...]


def _block_a(pool: int) -> tuple[Branch, ...]:
    return (
        (Conv("branch1x1", 64),),
        (Conv("branch5x5_1", 48), Conv("branch5x5_2", 64, (5, 5))),
        (Conv("branch3x3dbl_1", 64), Conv("branch3x3dbl_2", 96, (3, 3)), Conv("branch3x3dbl_3", 96, (3, 3))),
        (Pool("average"), Conv("branch_pool", pool)),
    )


def _block_c(width: int) -> tuple[Branch, ...]:
    row, column = (1, 7), (7, 1)
    return (
        (Conv("branch1x1", 192),),
        (Conv("branch7x7_1", width), Conv("branch7x7_2", width, row), Conv("branch7x7_3", 192, column)),
        (
            Conv("branch7x7dbl_1", width),
            *(Conv(f"branch7x7dbl_{n}", width, column if n % 2 == 0 else row) for n in (2, 3, 4)),
            Conv("branch7x7dbl_5", 192, row),
        ),
        (Pool("average"), Conv("branch_pool", 192)),
    )


def _block_e(pool: str) -> tuple[Branch, ...]:
    fork = lambda name: (Conv(f"{name}a", 384, (1, 3)), Conv(f"{name}b", 384, (3, 1)))
    return (
        (Conv("branch1x1", 320),),
        (Conv("branch3x3_1", 384), fork("branch3x3_2")),
        (Conv("branch3x3dbl_1", 448), Conv("branch3x3dbl_2", 384, (3, 3)), fork("branch3x3dbl_3")),
        (Pool(pool), Conv("branch_pool", 192)),
    )


STEM: Branch = (
    Conv("Conv2d_1a_3x3", 32, (3, 3), stride=2),
    Conv("Conv2d_2a_3x3", 32, (3, 3), padded=False),
    Conv("Conv2d_2b_3x3", 64, (3, 3)),
    Pool("max", 2),
    Conv("Conv2d_3b_1x1", 80),
    Conv("Conv2d_4a_3x3", 192, (3, 3), padded=False),
    Pool("max", 2),
)
# In the order of the graph: its scopes are mixed, mixed_1 ... mixed_10.
BLOCKS: dict[str, tuple[Branch, ...]] = {
    "Mixed_5b": _block_a(32),
    "Mixed_5c": _block_a(64),
    "Mixed_5d": _block_a(64),
    "Mixed_6a": (
        (Conv("branch3x3", 384, (3, 3), stride=2),),
        (Conv("branch3x3dbl_1", 64), Conv("branch3x3dbl_2", 96, (3, 3)), Conv("branch3x3dbl_3", 96, (3, 3), stride=2)),
        (Pool("max", 2),),
    ),
    "Mixed_6b": _block_c(128),
    "Mixed_6c": _block_c(160),
    "Mixed_6d": _block_c(160),
    "Mixed_6e": _block_c(192),
    "Mixed_7a": (
        (Conv("branch3x3_1", 192), Conv("branch3x3_2", 320, (3, 3), stride=2)),
        (
            *(Conv("branch7x7x3_1", 192), Conv("branch7x7x3_2", 192, (1, 7)), Conv("branch7x7x3_3", 192, (7, 1))),
            Conv("branch7x7x3_4", 192, (3, 3), stride=2),
        ),
        (Pool("max", 2),),
    ),
    "Mixed_7b": _block_e("average"),
    "Mixed_7c": _block_e("max"),
}
_SPATIAL_BLOCK = "Mixed_6d"  # its first branch is the tensor mixed_6/conv of the graph


class Features(NamedTuple):
    """Features behind the figures, float32.

    Attributes:
      pool: [B, 2048], the tensor pool_3; its product with the head gives the logits.
      spatial: [B, 2023], seven channels of mixed_6/conv, flattened as in the graph: rows, columns, channels.
    """

    pool: jax.Array
    spatial: jax.Array


class _ConvNorm(nn.Module):
    """Convolution without bias, batch norm by stored statistics, ReLU."""

    conv: Conv

    @nn.compact
    def __call__(self, x_BxHxWxC: jax.Array) -> jax.Array:
        conv = self.conv
        kernel = self.param("kernel", nn.initializers.he_normal(), (*conv.kernel, x_BxHxWxC.shape[-1], conv.width))
        ones, zeros = nn.initializers.ones, nn.initializers.zeros
        scale, variance = (self.param(name, ones, (conv.width,)) for name in ("scale", "variance"))
        bias, mean = (self.param(name, zeros, (conv.width,)) for name in ("bias", "mean"))
        padding = "SAME" if conv.padded and conv.stride == 1 else "VALID"
        h = jax.lax.conv_general_dilated(
            *(x_BxHxWxC, kernel, (conv.stride,) * 2, padding),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=_HIGHEST,
        )
        factor = scale * jax.lax.rsqrt(variance + EPSILON)
        return nn.relu(h * factor + (bias - mean * factor))


class Inception(nn.Module):
    """Pictures [B, 299, 299, 3] as `prepare` makes them -> `Features`.

    Parameters: a layer ("Mixed_5b.branch1x1") has kernel [h, w, in, out], scale, bias, mean and variance [out];
    "fc" has kernel [2048, 1008] and bias [1008]; the features do not use it.
    """

    @nn.compact
    def __call__(self, x_Bx299x299x3: jax.Array) -> Features:
        self.param("fc", _head)  # a part of the file and of the tree, though the features do not use it
        h = self._run(STEM, x_Bx299x299x3, "")
        for name, branches in BLOCKS.items():
            parts = [self._run(branch, h, f"{name}.") for branch in branches]
            if name == _SPATIAL_BLOCK:
                spatial = parts[0]
            h = jnp.concatenate(parts, axis=-1)
        spatial = spatial[..., :SPATIAL_CHANNELS].reshape(h.shape[0], -1)
        return Features(jnp.mean(h, axis=(1, 2)), spatial)

    def _run(self, branch: Branch, h: jax.Array, prefix: str) -> jax.Array:
        for step in branch:
            if isinstance(step, Pool):
                h = _pool(step, h)
            else:
                fork = (step,) if isinstance(step, Conv) else step
                h = jnp.concatenate([_ConvNorm(conv, name=prefix + conv.name)(h) for conv in fork], axis=-1)
        return h


def _head(key: jax.Array) -> Params:
    kernel = nn.initializers.lecun_normal()(key, (POOL, OUTPUTS))
    return {"kernel": kernel, "bias": jnp.zeros(OUTPUTS)}


def _pool(pool: Pool, x: jax.Array) -> jax.Array:
    padding, stride = "SAME" if pool.stride == 1 else "VALID", (pool.stride, pool.stride)
    if pool.kind == "max":
        return nn.max_pool(x, (3, 3), stride, padding)
    return nn.avg_pool(x, (3, 3), stride, padding, count_include_pad=False)


def layers() -> dict[str, tuple[int, int, int, int]]:
    """Names of all convolutions and shapes of their kernels (height, width, in, out)."""
    picture = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
    shapes = jax.eval_shape(Inception().init, jax.random.key(0), picture)["params"]
    return {name: layer["kernel"].shape for name, layer in shapes.items() if name != "fc"}


def prepare(images_BxHxWx3: jax.Array) -> jax.Array:
    """Turns uint8 pictures [B, H, W, 3] into [B, 299, 299, 3] as the graph does: resized, then (x - 128) / 128.

    The resize is TensorFlow 1's bilinear one: output pixel i samples input i * H / 299, without half-pixel
    centres and without antialiasing; a large picture is sampled, not averaged.
    """
    x = images_BxHxWx3.astype(jnp.float32)
    for axis in (1, 2):
        size = x.shape[axis]
        # In float32 like TensorFlow's kernel, since rounding picks the neighbour where the product is nearly whole.
        at = np.arange(SIDE, dtype=np.float32) * np.float32(size / SIDE)
        low = np.minimum(at.astype(np.int32), size - 1)
        share = (at - low).reshape((-1, 1, 1) if axis == 1 else (-1, 1))
        below, above = (jnp.take(x, index, axis=axis) for index in (low, np.minimum(low + 1, size - 1)))
        x = below + (above - below) * share
    return (x - 128.0) / 128.0


def extract(params: Params, images_BxHxWx3: jax.Array) -> Features:
    """Computes `Features` of uint8 pictures [B, H, W, 3] of any one size."""
    return Inception().apply({"params": params}, prepare(images_BxHxWx3))
