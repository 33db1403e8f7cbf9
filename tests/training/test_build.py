"""What a config makes of a stage's task: the module that learns beside the one that is judged, and typos."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.golden_models import random_params
from tests.training import tiny
from var_jax.errors import InputError
from var_jax.evaluation.frechet import frechet_distance, mean_and_covariance
from var_jax.models.pictures import to_signed
from var_jax.models.shapes import tokenizer_shapes
from var_jax.parallel.mesh import make_mesh
from var_jax.training import build, fields, tokenizer


def task_of(**changes):
    return build.tokenizer_task(tiny.tokenizer(**changes), make_mesh(devices=jax.devices()[:1]))


def test_a_narrow_encoder_learns_and_is_judged_in_float32():
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    batch, mask = {"images": images}, np.ones(4, np.float32)
    plain, narrow = task_of(), task_of(encoder_dtype="bfloat16")
    params, key = random_params(tokenizer_shapes(plain.config)), jax.random.key(1)
    losses = [jax.jit(task.loss)(params, {}, batch, key, 0)[0] for task in (plain, narrow)]
    assert losses[0] != losses[1]
    np.testing.assert_allclose(*losses, rtol=0.05)
    judged = [jax.jit(task.evaluate)(params, {}, batch | {"mask": mask}) for task in (plain, narrow)]
    jax.tree.map(np.testing.assert_array_equal, *judged)
    features = jax.eval_shape(
        lambda p: narrow.learning.apply({"params": p}, jnp.zeros((1, 8, 8, 3)), method="features"), params
    )
    assert features.dtype == jnp.float32  # what is looked up in the codebook


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("encoder_dtype", "bf16", "config encoder_dtype is 'bf16': expected one of bfloat16"),
        ("remat", "nothing", "config remat is 'nothing': expected one of .*nothing_saveable.* or None"),
    ],
)
def test_a_typo_is_named(field, value, says):
    with pytest.raises(InputError, match=says):
        fields.check(tiny.tokenizer(**{field: value}))


def test_rfid_is_between_pictures_and_their_reconstructions(monkeypatch):
    """On features that can be computed by hand, over two batches, the second of them with filling."""
    pooled = lambda images: images.reshape(len(images), 4, -1).mean(-1).astype("float32")
    monkeypatch.setattr(tokenizer, "extract", lambda params, images: SimpleNamespace(pool=pooled(images)))
    task = task_of()
    params, evaluate = random_params(tokenizer_shapes(task.config)), jax.jit(task.evaluate)
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
    totals = None
    for rows, mask in ((images[:4], [1, 1, 1, 1]), (images[[4, 5, 5, 5]], [1, 1, 0, 0])):
        batch = {"images": rows, "mask": np.asarray(mask, np.float32)}
        totals = task.add(totals, jax.device_get(evaluate(params, {"inception": {}}, batch)))
    figures = task.summarise(totals)
    bound = task.module.bind({"params": params})
    shown = jax.jit(lambda images: (bound.decode(bound.encode(to_signed(images))) + 1) / 2 * 255)(images)
    shown = np.asarray(shown).astype(np.uint8)
    both = (mean_and_covariance(pooled(each)) for each in (images, shown))
    expected = frechet_distance(*(part for pair in both for part in pair))
    np.testing.assert_allclose(figures["rfid"], expected, rtol=1e-3)
    assert expected > 1.0
    assert f"rFID {figures['rfid']:.2f}" in task.headline(figures)
