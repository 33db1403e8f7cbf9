"""VGG16's convolutions (Simonyan and Zisserman, arXiv 1409.1556, configuration D), with the maps that LPIPS uses."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from var_jax.models.autoencoder import conv
from var_jax.models.precision import Dtype

# Widths of the convolutions between one pooling and the next; LPIPS uses the last of each stage.
STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
# From [-1, 1] to VGG16's own normalisation.
_SHIFT = np.float32((-0.030, -0.088, -0.188))
_SCALE = np.float32((0.458, 0.448, 0.450))
SMALLEST_SIDE = 2 ** (len(STAGES) - 1)  # in pixels: four halvings leave at least one position


class VGG16(nn.Module):
    """Normalised picture [B, H, W, 3] -> five maps after relu1_2, 2_2, 3_3, 4_3 and 5_3.

    Widths are 64, 128, 256, 512, 512; sides H, H/2, H/4, H/8, H/16. Parameters: conv_0 to conv_12, each
    `kernel` (3, 3, in, out) and `bias`.
    """

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BxHxWx3: jax.Array) -> list[jax.Array]:
        maps, index = [], 0
        h = x_BxHxWx3.astype(self.dtype)
        for stage, widths in enumerate(STAGES):
            if stage:
                h = nn.max_pool(h, (2, 2), (2, 2))
            for width in widths:
                h = nn.relu(conv(width, self.dtype, f"conv_{index}")(h))
                index += 1
            maps.append(h)
        return maps


def normalised(image_BxHxWx3: jax.Array) -> jax.Array:
    """Turns pictures in [-1, 1] into VGG16's input, float32."""
    return (image_BxHxWx3.astype(jnp.float32) - _SHIFT) / _SCALE


class VGGPatches(nn.Module):
    """Picture [B, H, W, 3] in [-1, 1] -> features of H W / 4^levels patches at `levels` + 1 depths, [B, N, C] each.

    A map finer than the last is averaged over each patch, so that every depth has one vector per patch.

    Attributes:
      levels: number of halvings before the last map, 0 to 4.
      dtype: compute type.
    """

    levels: int = 3
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, image_BxHxWx3: jax.Array) -> list[jax.Array]:
        maps = VGG16(self.dtype, name="trunk")(normalised(image_BxHxWx3))[: self.levels + 1]
        patches = []
        for level, each_BxHxWxC in enumerate(maps):
            window = (2 ** (self.levels - level),) * 2
            pooled = nn.avg_pool(each_BxHxWxC, window, window)
            patches.append(pooled.reshape(len(pooled), -1, pooled.shape[-1]))
        return patches
