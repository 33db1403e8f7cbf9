"""VGG16's convolutions (Simonyan and Zisserman, arXiv 1409.1556, configuration D) and where LPIPS looks into them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from var_jax.models.autoencoder import conv
from var_jax.models.precision import Dtype

# Width of the convolutions between one pooling and the next; the last of each stretch is looked at.
STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
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
