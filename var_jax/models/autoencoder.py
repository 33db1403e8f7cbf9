"""The convolutional encoder and decoder around the quantizer (latent diffusion's VQ-f16 network).

Pictures and features are NHWC. Parameters are float32; `dtype` is the compute type. Group norms take
their statistics in float32 whatever the compute type, and float32 compute means full float32 on
every platform (no reduced-precision matrix passes), so that stored tokens are the same everywhere.

As in the transformer, `constrain(x, name)` places activations on a mesh that is bound outside ("features"
[B, H, W, C]), and `remat` names a policy of `models.recompute` by which residual blocks are computed
again in the backward pass; None keeps everything. `convolution` computes the 3x3 convolutions that keep the size.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

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


class ResidualBlock(nn.Module):
    """Norm, SiLU, conv, norm, SiLU, dropout, conv; 1x1 shortcut only where the width changes."""

    channels: int
    norm_groups: int = 32
    dropout: float = 0.0
    dtype: Dtype = jnp.float32
    constrain: Constrain = identity
    convolution: Convolution = jax.lax.conv_general_dilated

    @nn.compact
    def __call__(self, x_BxHxWxC: jax.Array, deterministic: bool = True) -> jax.Array:
        h = nn.silu(group_norm(self.norm_groups, self.dtype, "norm_1")(x_BxHxWxC))
        h = self.constrain(conv(self.channels, self.dtype, "conv_1", convolution=self.convolution)(h), "features")
        h = nn.silu(group_norm(self.norm_groups, self.dtype, "norm_2")(h))
        h = nn.Dropout(self.dropout)(h, deterministic=deterministic)
        h = conv(self.channels, self.dtype, "conv_2", kernel_init=_ZEROS, convolution=self.convolution)(h)
        if x_BxHxWxC.shape[-1] != self.channels:
            x_BxHxWxC = conv(self.channels, self.dtype, "shortcut", kernel=1)(x_BxHxWxC)
        return self.constrain(x_BxHxWxC + h, "features")


class SpatialAttention(nn.Module):
    """One-head self-attention over all positions of a feature map, residual, softmax in float32."""

    norm_groups: int = 32
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BxHxWxC: jax.Array) -> jax.Array:
        batch, height, width, channels = x_BxHxWxC.shape
        precision = precision_for(self.dtype)
        h = group_norm(self.norm_groups, self.dtype, "norm")(x_BxHxWxC)
        h_BxNxC = h.reshape(batch, height * width, channels)
        qkv = nn.DenseGeneral((3, channels), dtype=self.dtype, precision=precision, name="qkv")(h_BxNxC)
        q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        wide = at_least_float32(self.dtype)
        scores = jnp.einsum("bqc,bkc->bqk", q, k, precision=precision, preferred_element_type=wide)
        weights = nn.softmax(scores * channels**-0.5, axis=-1).astype(self.dtype)
        h = jnp.einsum("bqk,bkc->bqc", weights, v, precision=precision)
        h = nn.Dense(channels, dtype=self.dtype, precision=precision, kernel_init=_ZEROS, name="out")(h)
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
    norm_groups: int = 32
    dropout: float = 0.0
    dtype: Dtype = jnp.float32
    constrain: Constrain = identity
    remat: str | None = None
    convolution: Convolution = jax.lax.conv_general_dilated

    @nn.compact
    def __call__(self, image_BxHxWx3: jax.Array, deterministic: bool = True) -> jax.Array:
        last, blocks = len(self.channel_multipliers) - 1, _blocks(self)
        h = conv(self.base_channels, self.dtype, "conv_in")(image_BxHxWx3.astype(self.dtype))
        h = self.constrain(h, "features")
        for level, multiplier in enumerate(self.channel_multipliers):
            channels = self.base_channels * multiplier
            for block in range(self.blocks_per_level):
                name = f"level_{level}_block_{block}"
                h = blocks(channels, name=name)(h, deterministic)
                if level == last:
                    h = SpatialAttention(self.norm_groups, self.dtype, name=f"level_{level}_attention_{block}")(h)
            if level != last:
                pad_end = ((0, 1), (0, 1))  # one row and column of zeros at the bottom and right only
                h = conv(channels, self.dtype, f"level_{level}_downsample", stride=2, padding=pad_end)(h)
                h = self.constrain(h, "features")
        h = Middle(blocks, self.norm_groups, self.dtype, name="middle")(h, deterministic)
        h = nn.silu(group_norm(self.norm_groups, self.dtype, "norm_out")(h))
        return conv(self.code_width, self.dtype, "conv_out")(h)


class Decoder(nn.Module):
    """Features [B, h, w, code_width] -> picture [B, h f, w f, 3], nominally in [-1, 1], not clipped."""

    base_channels: int
    channel_multipliers: Sequence[int]
    blocks_per_level: int
    norm_groups: int = 32
    dropout: float = 0.0
    dtype: Dtype = jnp.float32
    constrain: Constrain = identity
    remat: str | None = None
    convolution: Convolution = jax.lax.conv_general_dilated

    @nn.compact
    def __call__(self, features_BxhxwxC: jax.Array, deterministic: bool = True) -> jax.Array:
        last, blocks = len(self.channel_multipliers) - 1, _blocks(self)
        channels = self.base_channels * self.channel_multipliers[last]
        h = conv(channels, self.dtype, "conv_in")(features_BxhxwxC.astype(self.dtype))
        h = self.constrain(h, "features")
        h = Middle(blocks, self.norm_groups, self.dtype, name="middle")(h, deterministic)
        for level in reversed(range(last + 1)):
            channels = self.base_channels * self.channel_multipliers[level]
            for block in range(self.blocks_per_level):
                name = f"level_{level}_block_{block}"
                h = blocks(channels, name=name)(h, deterministic)
                if level == last:
                    h = SpatialAttention(self.norm_groups, self.dtype, name=f"level_{level}_attention_{block}")(h)
            if level != 0:
                h = self.constrain(
                    conv(channels, self.dtype, f"level_{level}_upsample", convolution=self.convolution)(
                        nearest_twice(h)
                    ),
                    "features",
                )
        h = nn.silu(group_norm(self.norm_groups, self.dtype, "norm_out")(h))
        return conv(3, self.dtype, "conv_out")(h)


class Middle(nn.Module):
    """Residual block, attention, residual block at the coarsest level."""

    blocks: Callable[..., ResidualBlock]
    norm_groups: int
    dtype: Dtype

    @nn.compact
    def __call__(self, h: jax.Array, deterministic: bool) -> jax.Array:
        channels = h.shape[-1]
        h = self.blocks(channels, name="block_1")(h, deterministic)
        h = SpatialAttention(self.norm_groups, self.dtype, name="attention")(h)
        return self.blocks(channels, name="block_2")(h, deterministic)


def _blocks(network: Encoder | Decoder) -> Callable[..., ResidualBlock]:
    """(channels, name) -> a residual block of a network, recomputed in the backward pass where it says so."""
    kind = ResidualBlock
    if network.remat is not None:
        kind = nn.remat(ResidualBlock, policy=policy(network.remat), static_argnums=(2,))  # counted from self
    shared = {name: getattr(network, name) for name in ("norm_groups", "dropout", "dtype", "constrain", "convolution")}
    return functools.partial(kind, **shared)


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
