"""Weights of the Inception network by the rule of tests/golden/README.md, as the published file names them."""

from __future__ import annotations

import functools
import math
import zlib
from typing import Any

import jax
import numpy as np

from var_jax.models.parameters import Params
from var_jax.pretrained.inception import OUTPUTS, POOL, layers


def published_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the .pth file's tensors."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (height, width, inputs, outputs) in layers().items():
        shapes[f"{name}.conv.weight"] = (outputs, inputs, height, width)
        shapes |= {f"{name}.bn.{part}": (outputs,) for part in ("weight", "bias", "running_mean", "running_var")}
    return shapes | {"fc.weight": (OUTPUTS, POOL), "fc.bias": (OUTPUTS,)}


@functools.cache
def tensors() -> dict[str, np.ndarray]:
    """The .pth file's content, drawn. Not to be changed."""
    return {name: _drawn(name, shape) for name, shape in published_shapes().items()}


def _drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    n = np.random.default_rng(zlib.crc32(f"inception/{name}".encode())).standard_normal(shape).astype(np.float32)
    if name.endswith("conv.weight"):
        return n * np.float32(math.sqrt(2 / math.prod(shape[1:])))
    if name.endswith("bn.weight"):
        return 1 + np.float32(0.1) * n
    if name.endswith("running_var"):
        return 1 + np.float32(0.1) * np.abs(n)
    return n / np.float32(math.sqrt(POOL)) if name == "fc.weight" else np.float32(0.1) * n


def params() -> Params:
    """The same as `Inception` takes them, put together without the reader."""
    named = tensors()
    parts = {"scale": "weight", "bias": "bias", "mean": "running_mean", "variance": "running_var"}
    tree: dict[str, Any] = {
        name: {"kernel": named[f"{name}.conv.weight"].transpose(2, 3, 1, 0)}
        | {ours: named[f"{name}.bn.{theirs}"] for ours, theirs in parts.items()}
        for name in layers()
    }
    tree["fc"] = {"kernel": named["fc.weight"].T, "bias": named["fc.bias"]}
    return jax.tree.map(np.ascontiguousarray, tree)
