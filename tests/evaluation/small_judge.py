"""A small network in Inception's place, small pictures and a small model, for tests of everything around them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from tests.interop.checkpoints import drawn_model, tokenizer_config, transformer_config
from var_jax.evaluation.extract import Extractor
from var_jax.evaluation.pictures import Drawing
from var_jax.evaluation.protocol import Judge
from var_jax.model_directory import Model
from var_jax.parallel.mesh import make_mesh
from var_jax.pretrained.inception import Features
from var_jax.pyramid import Pyramid

POOL, SPATIAL, CLASSES, SIDE = 6, 8, 5, 8
PYRAMID = Pyramid((1, 2))
TOKENIZER = tokenizer_config(pyramid=PYRAMID, base_channels=8, norm_groups=4)
TRANSFORMER = transformer_config(pyramid=PYRAMID, depth=1, num_classes=CLASSES)
DRAWING = Drawing(per_class=3, batch=8)  # one size of batches for all tests: compiled once


def network(params: jax.Array, images_BxHxWx3: jax.Array) -> Features:
    """Colour of the halves, and the quarters' reds and greens, of pictures of any even size."""
    x = images_BxHxWx3.astype(jnp.float32) / 255.0
    halves = jnp.stack(jnp.split(x, 2, axis=1), axis=1).mean(axis=(2, 3)).reshape(len(x), POOL)
    quarters = x.reshape(len(x), 2, x.shape[1] // 2, 2, x.shape[2] // 2, 3).mean(axis=(2, 4))
    return Features(jnp.tanh(halves @ params), quarters[..., :2].reshape(len(x), SPATIAL))


def small_judge(devices: int = 1, batch: int = 8) -> Judge:
    """On the first devices."""
    rng = np.random.default_rng(0)
    params, head = rng.standard_normal((POOL, POOL)).astype(np.float32), rng.standard_normal((POOL, CLASSES))
    mesh = make_mesh(devices=jax.devices()[:devices])
    extractor = Extractor(params, "small", mesh, batch, network)
    return Judge(extractor, 20 * head.astype(np.float32), SPATIAL, {"file": "small", "published": True})


def pictures(count: int, seed: int = 0, side: int = SIDE) -> np.ndarray:
    """uint8 [count, side, side, 3], of coarse colours."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 2, 2, 3), np.uint8)
    return coarse.repeat(side // 2, axis=1).repeat(side // 2, axis=2)


def small_model() -> Model:
    """A model all of whose classes are alike, so that only keys can make their pictures differ."""
    model = drawn_model(TOKENIZER, TRANSFORMER)
    params = model.transformer_params
    params["class_embedding"] = np.repeat(params["class_embedding"][:1], CLASSES + 1, axis=0)
    return model
