"""The small models of the golden files, built through the same name tables that users' checkpoints take."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from var_jax.interop.tokenizer import ImportedTokenizer, import_tokenizer
from var_jax.pyramid import Pyramid

SMALL_PYRAMID = Pyramid((1, 2, 3, 4))


def weights(golden: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The reference tensors of a golden file under their own names."""
    return {name.removeprefix("weights/"): array for name, array in golden.items() if name.startswith("weights/")}


def small_tokenizer(golden: dict[str, np.ndarray]) -> ImportedTokenizer:
    """The tokenizer of tokenizer_small.npz."""
    return import_tokenizer(weights(golden), SMALL_PYRAMID)


def to_nhwc(array: np.ndarray) -> np.ndarray:
    """[..., C, H, W] -> [..., H, W, C]."""
    return np.moveaxis(array, -3, -1)


def relative_error(ours: np.ndarray, reference: np.ndarray) -> float:
    """Largest difference over the largest magnitude of the reference."""
    ours, reference = np.asarray(ours, np.float64), np.asarray(reference, np.float64)
    assert ours.shape == reference.shape, (ours.shape, reference.shape)
    return float(np.max(np.abs(ours - reference)) / np.max(np.abs(reference)))


def random_params(abstract: Any, seed: int = 0, scale: float = 0.2) -> Any:
    """Parameters of the given shapes in which every layer contributes, without compiling an initialiser."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: (scale * rng.standard_normal(leaf.shape)).astype(np.float32), abstract)
