"""The convolutional encoder and decoder around the quantizer (latent diffusion's VQ-f16 network).

Pictures and features are NHWC. Parameters are float32; `dtype` is the compute type. Group norms take
their statistics in float32 whatever the compute type, and float32 compute means full float32 on
every platform (no reduced-precision matrix passes), so that stored tokens are the same everywhere.

As in the transformer, `constrain(x, name)` places activations ("features" [B, H, W, C]) on a mesh that is bound
outside, and a backend computes convolutions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from var_jax.models.constraint import Constrain, identity
from var_jax.models.precision import Dtype, at_least_float32, precision_for
from var_jax.models.recompute import policy

# The last kernel of every residual branch starts at zero, so that a fresh network passes its input on.
_ZEROS = nn.initializers.zeros_init()
_LECUN = nn.initializers.lecun_normal()
_NORM_EPSILON = 1e-6

Convolution = Callable[..., jax.Array]  # like `jax.lax.conv_general_dilated`


@dataclasses.dataclass(frozen=True)
class Layers:
    """The options that all layers of encoder and decoder share, and the layers with these options.

    Attributes:
      norm_groups: groups of every group norm.
      dropout: in residual blocks, training only.
      dtype: compute type.
      constrain: places activations on a mesh.
      remat: a policy of `models.recompute` for residual blocks, or None.
      convolution: computes the 3x3 convolutions that keep the size.
    """

    norm_groups: int = 32
    dropout: float = 0.0
    dtype: Dtype = jnp.float32
    constrain: Constrain = identity
    remat: str | None = None
    convolution: Convolution = jax.lax.conv_general_dilated

    def conv(self, features: int, name: str, **options: Any) -> nn.Conv:
        """See `conv`."""
        return conv(features, self.dtype, name, **options)

    def same_size(self, features: int, name: str, **options: Any) -> nn.Conv:
        """A 3x3 convolution that keeps the size."""
        return self.conv(features, name, convolution=self.convolution, **options)

    def norm(self, name: str) -> GroupNorm:
        """A group norm."""
        return group_norm(self.norm_groups, self.dtype, name)

    def block(self, channels: int, name: str) -> ResidualBlock:
        """A residual block, recomputed in the backward pass if `remat` says so."""
        kind = ResidualBlock
        if self.remat is not None:
            kind = nn.remat(ResidualBlock, policy=policy(self.remat), static_argnums=(2,))  # counted from self
        return kind(channels, self, name=name)


class ResidualBlock(nn.Module):
    """Norm, SiLU, conv, norm, SiLU, dropout, conv; 1x1 shortcut only where the width changes."""

    channels: int
    layers: Layers = Layers()

    @nn.compact
    def __call__(self, x_BxHxWxC: jax.Array, deterministic: bool = True) -> jax.Array:
        layers, constrain = self.layers, self.layers.constrain
        h = nn.silu(layers.norm("norm_1")(x_BxHxWxC))
        h = constrain(layers.same_size(self.channels, "conv_1")(h), "features")
        h = nn.silu(layers.norm("norm_2")(h))
        h = nn.Dropout(layers.dropout)(h, deterministic=deterministic)
        h = layers.same_size(self.channels, "conv_2", kernel_init=_ZEROS)(h)
        if x_BxHxWxC.shape[-1] != self.channels:
            x_BxHxWxC = layers.conv(self.channels, "shortcut", kernel=1)(x_BxHxWxC)
        return constrain(x_BxHxWxC + h, "features")


class SpatialAttention(nn.Module):
    """One-head self-attention over all positions of a feature map, residual, softmax in float32."""

    layers: Layers = Layers()

    @nn.compact
    def __call__(self, x_BxHxWxC: jax.Array) -> jax.Array:
        batch, height, width, channels = x_BxHxWxC.shape
        dtype, precision = self.layers.dtype, precision_for(self.layers.dtype)
        h_BxNxC = self.layers.norm("norm")(x_BxHxWxC).reshape(batch, height * width, channels)
        qkv = nn.DenseGeneral((3, channels), dtype=dtype, precision=precision, name="qkv")(h_BxNxC)
        q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        wide = at_least_float32(dtype)
        scores = jnp.einsum("bqc,bkc->bqk", q, k, precision=precision, preferred_element_type=wide)
        weights = nn.softmax(scores * channels**-0.5, axis=-1).astype(dtype)
        h = jnp.einsum("bqk,bkc->bqc", weights, v, precision=precision)
        h = nn.Dense(channels, dtype=dtype, precision=precision, kernel_init=_ZEROS, name="out")(h)
        return x_BxHxWxC + h.reshape(x_BxHxWxC.shape)


class Encoder(nn.Module):
    """Picture [B, H, W, 3] in [-1, 1] -> features [B, H/f, W/f, code_width], f = 2^(levels - 1).

    `base_channels * channel_multipliers[i]` is the width of level i, finest first; attention follows
    every block of the coarsest level.
    """

    base_channels: int
    channel_multipliers: Sequence[int]
    blocks_per_level: int
    code_width: int
    layers: Layers = Layers()

    @nn.compact
    def __call__(self, image_BxHxWx3: jax.Array, deterministic: bool = True) -> jax.Array:
        layers, last = self.layers, len(self.channel_multipliers) - 1
        h = layers.conv(self.base_channels, "conv_in")(image_BxHxWx3.astype(layers.dtype))
        h = layers.constrain(h, "features")
        for level, multiplier in enumerate(self.channel_multipliers):
            channels = self.base_channels * multiplier
            h = _level(layers, h, deterministic, level, channels, self.blocks_per_level, attention=level == last)
            if level != last:
                pad_end = ((0, 1), (0, 1))  # one row and column of zeros at the bottom and right only
                h = layers.conv(channels, f"level_{level}_downsample", stride=2, padding=pad_end)(h)
                h = layers.constrain(h, "features")
        h = Middle(layers, name="middle")(h, deterministic)
        return layers.conv(self.code_width, "conv_out")(nn.silu(layers.norm("norm_out")(h)))


class Decoder(nn.Module):
    """Features [B, h, w, code_width] -> picture [B, h f, w f, 3], nominally in [-1, 1], not clipped."""

    base_channels: int
    channel_multipliers: Sequence[int]
    blocks_per_level: int
    layers: Layers = Layers()

    @nn.compact
    def __call__(self, features_BxhxwxC: jax.Array, deterministic: bool = True) -> jax.Array:
        layers, last = self.layers, len(self.channel_multipliers) - 1
        h = layers.conv(self.base_channels * self.channel_multipliers[last], "conv_in")(
            features_BxhxwxC.astype(layers.dtype)
        )
        h = layers.constrain(h, "features")
        h = Middle(layers, name="middle")(h, deterministic)
        for level in reversed(range(last + 1)):
            channels = self.base_channels * self.channel_multipliers[level]
            h = _level(layers, h, deterministic, level, channels, self.blocks_per_level, attention=level == last)
            if level != 0:
                h = layers.same_size(channels, f"level_{level}_upsample")(nearest_twice(h))
                h = layers.constrain(h, "features")
        return layers.conv(3, "conv_out")(nn.silu(layers.norm("norm_out")(h)))


def _level(
    layers: Layers, h: jax.Array, deterministic: bool, level: int, channels: int, blocks: int, attention: bool
) -> jax.Array:
    """The residual blocks of one level, each followed by attention where there is any."""
    for block in range(blocks):
        h = layers.block(channels, f"level_{level}_block_{block}")(h, deterministic)
        if attention:
            h = SpatialAttention(layers, name=f"level_{level}_attention_{block}")(h)
    return h


class Middle(nn.Module):
    """Residual block, attention, residual block at the coarsest level."""

    layers: Layers = Layers()

    @nn.compact
    def __call__(self, h: jax.Array, deterministic: bool) -> jax.Array:
        channels = h.shape[-1]
        h = self.layers.block(channels, "block_1")(h, deterministic)
        h = SpatialAttention(self.layers, name="attention")(h)
        return self.layers.block(channels, "block_2")(h, deterministic)


def conv(
    features: int,
    dtype: Dtype,
    name: str,
    kernel: int = 3,
    stride: int = 1,
    padding: tuple[tuple[int, int], tuple[int, int]] | None = None,
    kernel_init: nn.initializers.Initializer = _LECUN,
    convolution: Convolution = jax.lax.conv_general_dilated,
) -> nn.Conv:
    """A convolution over NHWC with a bias; zero padding of kernel // 2 unless `padding` says otherwise."""
    half = kernel // 2
    return nn.Conv(
        features,
        (kernel, kernel),
        strides=(stride, stride),
        padding=padding or ((half, half), (half, half)),
        dtype=dtype,
        precision=precision_for(dtype),
        kernel_init=kernel_init,
        conv_general_dilated=convolution,
        name=name,
    )


class GroupNorm(nn.Module):
    """Mean and variance over all positions and a group's channels, epsilon 1e-6; the parameters of `nn.GroupNorm`.

    Means are taken channel by channel first, in the order in which a CPU holds them. The variance is that of centred
    values, in a second pass, as the published weights were trained with.
    """

    groups: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BxNxC: jax.Array) -> jax.Array:
        """As many position axes as there are."""
        batch, channels = x_BxNxC.shape[0], x_BxNxC.shape[-1]
        scale = self.param("scale", nn.initializers.ones_init(), (channels,))
        bias = self.param("bias", nn.initializers.zeros_init(), (channels,))
        x = x_BxNxC.astype(at_least_float32(self.dtype))
        axes, members = tuple(range(1, x.ndim - 1)), channels // self.groups

        def over_groups(x: jax.Array) -> jax.Array:
            means_BxG = jnp.mean(jnp.mean(x, axes).reshape(batch, self.groups, members), axis=-1)
            return jnp.repeat(means_BxG, members, axis=-1).reshape(batch, *(1 for _ in axes), channels)

        centred = x - over_groups(x)
        factor = jax.lax.rsqrt(over_groups(jnp.square(centred)) + _NORM_EPSILON) * scale
        return (centred * factor + bias).astype(self.dtype)


def group_norm(groups: int, dtype: Dtype, name: str) -> GroupNorm:
    """A `GroupNorm` by its name among a module's parameters."""
    return GroupNorm(groups, dtype, name=name)


def nearest_twice(x_BxHxWxC: jax.Array) -> jax.Array:
    """Every pixel repeated twice along height and width."""
    batch, height, width, channels = x_BxHxWxC.shape
    x = jnp.broadcast_to(x_BxHxWxC[:, :, None, :, None], (batch, height, 2, width, 2, channels))
    return x.reshape(batch, 2 * height, 2 * width, channels)
