"""DINO's ViT against its arithmetic written in numpy, and its file."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from var_jax.errors import InputError
from var_jax.formats.tensors import write_tensors
from var_jax.pretrained.dino import PATCH, DinoViT, read_dino

SMALL = DinoViT(side=32, width=24, depth=3, num_heads=2)


def drawn(seed: int = 0) -> dict[str, np.ndarray]:
    """A state dict under the published names, for `SMALL`."""
    rng, width = np.random.default_rng(seed), SMALL.width
    shapes = {"cls_token": (1, 1, width), "pos_embed": (1, 5, width)}
    shapes |= {"patch_embed.proj.weight": (width, 3, PATCH, PATCH), "patch_embed.proj.bias": (width,)}
    for block in range(SMALL.depth):
        sizes = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}
        sizes |= {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width), "norm1": (width,), "norm2": (width,)}
        for name, shape in sizes.items():
            shapes |= {f"blocks.{block}.{name}.weight": shape, f"blocks.{block}.{name}.bias": shape[:1]}
    return {name: 0.2 * rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def normed(x, scale, bias):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * scale + bias


def by_numpy(w: dict[str, np.ndarray], images: np.ndarray) -> list[np.ndarray]:
    """The readouts, float64, one picture and one head at a time."""
    gelu = np.vectorize(lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2))))
    w, out = {name: array.astype(np.float64) for name, array in w.items()}, []
    for image in images.astype(np.float64):
        image = ((image + 1) / 2 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        tokens = [w["cls_token"][0, 0]]
        for row in range(0, 32, PATCH):
            for column in range(0, 32, PATCH):
                patch = image[row : row + PATCH, column : column + PATCH].transpose(2, 0, 1)
                tokens.append(np.tensordot(w["patch_embed.proj.weight"], patch, 3) + w["patch_embed.proj.bias"])
        x = np.stack(tokens) + w["pos_embed"][0]
        readouts = [x[1:] + x[0]]
        for block in range(SMALL.depth):
            weight, bias = (lambda n, b=block, p=p: w[f"blocks.{b}.{n}.{p}"] for p in ("weight", "bias"))
            dense = lambda h, n, weight=weight, bias=bias: h @ weight(n).T + bias(n)
            q, k, v = np.split(dense(normed(x, weight("norm1"), bias("norm1")), "attn.qkv"), 3, axis=1)
            heads = []
            for part in np.split(np.arange(SMALL.width), SMALL.num_heads):
                scores = q[:, part] @ k[:, part].T / np.sqrt(len(part))
                share = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
                heads.append(share @ v[:, part])
            x = x + dense(np.concatenate(heads, axis=1), "attn.proj")
            x = x + dense(gelu(dense(normed(x, weight("norm2"), bias("norm2")), "mlp.fc1")), "mlp.fc2")
        out.append([*readouts, x[1:] + x[0]])
    return [np.stack(parts) for parts in zip(*out, strict=True)]


def test_features(tmp_path):
    tensors = drawn()
    extra = {"norm.weight": np.ones(24, np.float32), "head.bias": np.zeros(3, np.float32)}
    write_tensors(tmp_path / "dino.pth", tensors | extra, {})
    params = read_dino(tmp_path / "dino.pth", SMALL)
    images = np.random.default_rng(1).uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    expected = by_numpy(tensors, images)
    ours = SMALL.apply({"params": params}, jnp.asarray(images))
    assert len(ours) == len(expected) == 2
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max())
    # A picture of another size is brought to this one first.
    larger = SMALL.apply({"params": params}, jnp.asarray(np.repeat(np.repeat(images, 2, 1), 2, 2)))
    assert larger[0].shape == ours[0].shape


def test_the_published_size_has_five_readouts():
    images = jax.ShapeDtypeStruct((2, 256, 256, 3), jnp.float32)
    readouts, variables = jax.eval_shape(DinoViT().init_with_output, jax.random.key(0), images)
    assert [readout.shape for readout in readouts] == [(2, 196, 384)] * 5
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == 21_664_896  # without the last norm's 768


def test_wrong_files_are_named(tmp_path):
    for path in (tmp_path / "nowhere", ""):
        with pytest.raises(InputError, match="weights of DINO: no file '.*'; give dino_deitsmall16_pretrain.pth"):
            read_dino(path)
    tensors = drawn()
    write_tensors(tmp_path / "dino.safetensors", tensors, {})
    with pytest.raises(InputError, match=r"patch_embed.proj.weight has the shape \(24, 3, 16, 16\), expected \(384,"):
        read_dino(tmp_path / "dino.safetensors")
    del tensors["blocks.1.norm2.bias"]
    write_tensors(tmp_path / "short.safetensors", tensors, {})
    with pytest.raises(InputError, match="lacks blocks.1.norm2.bias of DINO's ViT"):
        read_dino(tmp_path / "short.safetensors", SMALL)
