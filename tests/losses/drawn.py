"""Drawn weights in LPIPS' shapes, and pictures: what the tests of perceptual losses share."""

from __future__ import annotations

import numpy as np

from var_jax.pretrained.vgg import STAGES


def weights(seed: int = 0) -> dict:
    """As `read_lpips` returns them; scaled so that signals neither die nor explode on the way."""
    rng, inputs, trunk = np.random.default_rng(seed), 3, {}
    for index, width in enumerate(width for stage in STAGES for width in stage):
        kernel = rng.standard_normal((3, 3, inputs, width), np.float32) * np.float32((2 / (9 * inputs)) ** 0.5)
        trunk[f"conv_{index}"] = {"kernel": kernel, "bias": 0.1 * rng.standard_normal(width, np.float32)}
        inputs = width
    return {"trunk": trunk, "heads": [rng.random(stage[-1], np.float32) / stage[-1] for stage in STAGES]}


def pictures(seed: int = 1, batch: int = 2, side: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Pictures in [-1, 1] and the same with noise."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (batch, side, side, 3)).astype(np.float32)
    return x, np.clip(x + 0.3 * rng.standard_normal(x.shape, np.float32), -1, 1)
