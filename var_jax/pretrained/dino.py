"""DINO's ViT-S/16 (Caron et al., arXiv 2104.14294): features of pictures, and the reader of its file.

You supply the file: `dino_deitsmall16_pretrain.pth` of facebookresearch/dino, or the same weights from timm
(`vit_small_patch16_224.dino`) as .pth or .safetensors. Nothing in it is executed.
"""

from __future__ import annotations

import functools
import math
import os

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from var_jax.models.parameters import Params
from var_jax.models.precision import Dtype, at_least_float32, precision_for
from var_jax.pretrained.files import published_tensors

PATCH = 16  # pixels along a side of the patch behind one token
_MEAN, _STD = np.float32((0.485, 0.456, 0.406)), np.float32((0.229, 0.224, 0.225))  # ImageNet's, of [0, 1]
_norm = functools.partial(nn.LayerNorm, epsilon=1e-6, use_fast_variance=False)
_REMEDY = "give dino_deitsmall16_pretrain.pth of facebookresearch/dino, or timm's vit_small_patch16_224.dino"


class DinoViT(nn.Module):
    """Pictures [B, H, W, 3] in [-1, 1] -> features [B, N, width] after the embedding and after every third block.

    Pictures are resized to `side` pixels first. A feature is a patch's token plus the class token, as in
    StyleGAN-T's and the VAR authors' discriminators.

    Attributes:
      side: picture side in pixels for which the positions were learned.
      width, depth, num_heads: size of the transformer.
      dtype: compute type; layer norms and softmax are float32 at least.
    """

    side: int = 224
    width: int = 384
    depth: int = 12
    num_heads: int = 6
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images_BxHxWx3: jax.Array) -> list[jax.Array]:
        batch, precision = images_BxHxWx3.shape[0], precision_for(self.dtype)
        images = jax.image.resize(images_BxHxWx3, (batch, self.side, self.side, 3), "bicubic")
        images = (((images + 1.0) / 2.0 - _MEAN) / _STD).astype(self.dtype)
        embed = nn.Conv(
            self.width, (PATCH, PATCH), (PATCH, PATCH), "VALID", dtype=self.dtype, precision=precision, name="embed"
        )
        patches_BxNxC = embed(images).reshape(batch, -1, self.width)
        tokens = patches_BxNxC.shape[1] + 1
        first = self.param("class_token", nn.initializers.normal(0.02), (self.width,))
        positions = self.param("positions", nn.initializers.normal(0.02), (tokens, self.width))
        first_Bx1xC = jnp.broadcast_to(first.astype(self.dtype), (batch, 1, self.width))
        x = jnp.concatenate([first_Bx1xC, patches_BxNxC], axis=1) + positions.astype(self.dtype)
        readouts = [x[:, 1:] + x[:, :1]]
        for block in range(self.depth):
            x = _Block(self.num_heads, self.dtype, name=f"block_{block}")(x)
            if (block + 1) % 3 == 0:
                readouts.append(x[:, 1:] + x[:, :1])
        return readouts


class _Block(nn.Module):
    """Pre-norm attention and MLP, both residual."""

    num_heads: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x_BxNxC: jax.Array) -> jax.Array:
        width, precision = x_BxNxC.shape[-1], precision_for(self.dtype)
        shape = (3, self.num_heads, width // self.num_heads)
        shared = {"dtype": self.dtype, "precision": precision}
        qkv = nn.DenseGeneral(shape, name="qkv", **shared)(_norm(name="norm_1")(x_BxNxC).astype(self.dtype))
        q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        wide = at_least_float32(self.dtype)
        scores = jnp.einsum("bqhk,bnhk->bhqn", q, k, precision=precision, preferred_element_type=wide)
        weights = nn.softmax(scores * shape[2] ** -0.5, axis=-1).astype(self.dtype)
        h = jnp.einsum("bhqn,bnhk->bqhk", weights, v, precision=precision)
        x = x_BxNxC + nn.DenseGeneral(width, axis=(-2, -1), name="out", **shared)(h)
        h = nn.Dense(4 * width, name="mlp_in", **shared)(_norm(name="norm_2")(x).astype(self.dtype))
        return x + nn.Dense(width, name="mlp_out", **shared)(nn.gelu(h, approximate=False))


def read_dino(path: str | os.PathLike[str], module: DinoViT | None = None) -> Params:
    """Reads the parameters of `module` (default: ViT-S/16 at 224 px) from a file, as float32 numpy arrays.

    Raises:
      InputError: if the file is missing, or lacks a tensor, or has one of another shape.
    """
    module = module or DinoViT()
    tensor = published_tensors(path, "DINO", "DINO's ViT", _REMEDY)
    width, split = module.width, (3, module.num_heads, module.width // module.num_heads)
    positions = (module.side // PATCH) ** 2 + 1

    def norm(name: str) -> Params:
        return {"scale": tensor(f"{name}.weight", (width,)), "bias": tensor(f"{name}.bias", (width,))}

    def dense(name: str, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Params:
        flat = (math.prod(outputs), math.prod(inputs))
        kernel = tensor(f"{name}.weight", flat).T.reshape(*inputs, *outputs)
        return {"kernel": kernel, "bias": tensor(f"{name}.bias", flat[:1]).reshape(outputs)}

    kernel = tensor("patch_embed.proj.weight", (width, 3, PATCH, PATCH)).transpose(2, 3, 1, 0)
    params = {
        "embed": {"kernel": kernel, "bias": tensor("patch_embed.proj.bias", (width,))},
        "class_token": tensor("cls_token", (1, 1, width)).reshape(width),
        "positions": tensor("pos_embed", (1, positions, width))[0],
    }
    for block in range(module.depth):
        name = f"blocks.{block}"
        params[f"block_{block}"] = {
            "norm_1": norm(f"{name}.norm1"),
            "norm_2": norm(f"{name}.norm2"),
            "qkv": dense(f"{name}.attn.qkv", (width,), split),
            "out": dense(f"{name}.attn.proj", split[1:], (width,)),
            "mlp_in": dense(f"{name}.mlp.fc1", (width,), (4 * width,)),
            "mlp_out": dense(f"{name}.mlp.fc2", (4 * width,), (width,)),
        }
    return jax.tree.map(lambda array: np.ascontiguousarray(array, np.float32), params)
