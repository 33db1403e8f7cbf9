"""Discriminators between pictures and reconstructions: NHWC in [-1, 1] in, float32 logits out, high for real.

None uses statistics over the batch, so a picture's logits do not depend on its neighbours or on how a
batch is split over devices.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from var_jax.errors import InputError
from var_jax.models.autoencoder import conv, group_norm
from var_jax.models.precision import Dtype, precision_for, widened

_NARROW, _WIDE = (1.0, 2.0, 1.0), (1.0, 3.0, 3.0, 1.0)


class PatchDiscriminator(nn.Module):
    """Judges overlapping patches: [B, H, W, 3] -> logits [B, H / 2^levels, W / 2^levels].

    A 5x5 convolution, then per level a 3x3 convolution, a blurred halving, group norm and leaky ReLU
    (0.1), the width doubling up to eight times `channels`; finally a 1x1 and a 5x5 convolution. This is
    the structure of 1d-tokenizer's discriminator; a patch covers about 5 + 4 (2^levels - 1) pixels.

    Attributes:
      channels: width of the first convolution; a multiple of `norm_groups`.
      levels: number of halvings.
      norm_groups: groups of the group norms.
      dtype: compute type.
    """

    channels: int = 64
    levels: int = 3
    norm_groups: int = 32
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, image_BxHxWx3: jax.Array) -> jax.Array:
        _require_halvings(image_BxHxWx3, self.levels)
        if self.channels % self.norm_groups:
            raise InputError(
                f"discriminator width {self.channels} does not divide into norm_groups {self.norm_groups}: change one"
            )
        h = conv(self.channels, self.dtype, "conv_in", kernel=5)(image_BxHxWx3.astype(self.dtype))
        h = nn.leaky_relu(h, 0.1)
        for level in range(self.levels):
            width = self.channels * min(2 ** (level + 1), 8)
            h = blur_halved(conv(width, self.dtype, f"level_{level}_conv_1")(h), _NARROW)
            h = nn.leaky_relu(group_norm(self.norm_groups, self.dtype, f"level_{level}_norm")(h), 0.1)
        h = nn.leaky_relu(conv(h.shape[-1], self.dtype, "conv_out", kernel=1)(h), 0.1)
        return widened(conv(1, self.dtype, "logits", kernel=5)(h))[..., 0]


class ResidualDiscriminator(nn.Module):
    """Judges whole pictures of one size: [B, H, W, 3] -> logits [B]. StyleGAN's, without statistics over the batch.

    Residual blocks halve the picture until a side is 4 (two 3x3 convolutions with leaky ReLU 0.2 and a
    blur in between; the shortcut blurs and convolves 1x1; the sum is divided by the root of 2), then a
    3x3 convolution and two dense layers. It has no norms, which would distort a gradient penalty.

    Attributes:
      channels: width at full size; doubles with every halving up to `most_channels`.
      most_channels: see `channels`.
      dtype: compute type.
    """

    channels: int = 64
    most_channels: int = 512
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, image_BxHxWx3: jax.Array) -> jax.Array:
        levels = max(int(np.log2(min(image_BxHxWx3.shape[1:3]) // 4)), 1)
        _require_halvings(image_BxHxWx3, levels)
        h = conv(self.channels, self.dtype, "conv_in")(image_BxHxWx3.astype(self.dtype))
        h = nn.leaky_relu(h, 0.2)
        for level in range(levels):
            width = min(self.channels * 2 ** (level + 1), self.most_channels)
            rest = conv(width, self.dtype, f"level_{level}_shortcut", kernel=1)(blur_halved(h, _WIDE))
            h = nn.leaky_relu(conv(h.shape[-1], self.dtype, f"level_{level}_conv_1")(h), 0.2)
            h = blur_halved(h, _WIDE)
            h = nn.leaky_relu(conv(width, self.dtype, f"level_{level}_conv_2")(h), 0.2)
            h = (h + rest) * 0.5**0.5
        h = nn.leaky_relu(conv(h.shape[-1], self.dtype, "conv_out")(h), 0.2)
        h = nn.Dense(h.shape[-1], dtype=self.dtype, name="dense")(h.reshape(h.shape[0], -1))
        return widened(nn.Dense(1, dtype=self.dtype, name="logits")(nn.leaky_relu(h, 0.2)))[:, 0]


class FeatureDiscriminator(nn.Module):
    """Judges features of a fixed network, one head per depth: list of [B, N, C] -> logits [B, sum of N].

    A head is a pointwise layer, a residual block with a circular convolution of 9 along N, and a pointwise
    layer to the logit; group norm and leaky ReLU (0.2) in between. On DINO's features this is the
    discriminator of the VAR authors' tokenizer trainer after StyleGAN-T, with group norm in place of
    spectral and synchronised batch norm, as in UniTok.

    Attributes:
      norm_groups: groups of the group norms; divides every C.
      dtype: compute type.
    """

    norm_groups: int = 32
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, features: list[jax.Array]) -> jax.Array:
        logits = []
        for index, features_BxNxC in enumerate(features):
            width, head = features_BxNxC.shape[-1], f"head_{index}"
            if width % self.norm_groups:
                raise InputError(
                    f"discriminator features of width {width} do not divide into norm_groups {self.norm_groups}: "
                    "change norm_groups"
                )
            h = self._activated(_along(width, 1, self.dtype, f"{head}_first")(features_BxNxC), f"{head}_norm_1")
            rest = self._activated(_along(width, 9, self.dtype, f"{head}_around")(h), f"{head}_norm_2")
            h = (h + rest) * 0.5**0.5
            logits.append(widened(_along(1, 1, self.dtype, f"{head}_logits")(h))[..., 0])
        return jnp.concatenate(logits, axis=1)

    def _activated(self, x_BxNxC: jax.Array, name: str) -> jax.Array:
        return nn.leaky_relu(group_norm(self.norm_groups, self.dtype, name)(x_BxNxC), 0.2)


def _along(features: int, kernel: int, dtype: Dtype, name: str) -> nn.Conv:
    """A circular convolution along N."""
    return nn.Conv(features, (kernel,), padding="CIRCULAR", dtype=dtype, precision=precision_for(dtype), name=name)


def blur_halved(x_BxHxWxC: jax.Array, taps: tuple[float, ...]) -> jax.Array:
    """Blurs x by `taps` along both sides, borders repeated, and keeps every second position: [B, H/2, W/2, C].

    Halving without a blur would let single pixels appear and vanish as a picture moves.
    """
    for axis in (1, 2):
        half = x_BxHxWxC.shape[axis] // 2
        widths = [(0, 0)] * 4
        widths[axis] = (1, len(taps) - 2)
        padded = jnp.pad(x_BxHxWxC, widths, mode="edge")
        parts = [
            tap / sum(taps) * jax.lax.slice_in_dim(padded, index, index + 2 * half - 1, stride=2, axis=axis)
            for index, tap in enumerate(taps)
        ]
        x_BxHxWxC = sum(parts)
    return x_BxHxWxC


def _require_halvings(image_BxHxWx3: jax.Array, levels: int) -> None:
    sides = image_BxHxWx3.shape[1:3]
    if any(side % 2**levels for side in sides):
        raise InputError(f"discriminator: pictures of {sides} pixels cannot be halved {levels} times: use fewer levels")
