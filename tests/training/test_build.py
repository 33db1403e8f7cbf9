"""What a config makes of a stage's task: the module that learns beside the one that is judged, and typos."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training import tiny
from var_jax.errors import InputError
from var_jax.parallel.mesh import make_mesh
from var_jax.parallel.rules import Constrain
from var_jax.training import build


def task_of(**changes):
    return build.tokenizer_task(tiny.tokenizer(**changes), None, Constrain(make_mesh(devices=jax.devices()[:1])))


def test_a_narrow_encoder_learns_and_is_judged_in_float32():
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    batch, mask = {"images": images}, np.ones(4, np.float32)
    plain, narrow = task_of(), task_of(encoder_dtype="bfloat16")
    params, key = plain.init(jax.random.key(0)), jax.random.key(1)
    losses = [jax.jit(task.loss)(params, {}, batch, key, 0)[0] for task in (plain, narrow)]
    assert losses[0] != losses[1]
    np.testing.assert_allclose(*losses, rtol=0.05)
    judged = [jax.jit(task.evaluate)(params, {}, batch | {"mask": mask}) for task in (plain, narrow)]
    jax.tree.map(np.testing.assert_array_equal, *judged)
    features = jax.eval_shape(
        lambda p: narrow.training.apply({"params": p}, jnp.zeros((1, 8, 8, 3)), method="features"), params
    )
    assert features.dtype == jnp.float32  # what is looked up in the codebook


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("encoder_dtype", "bf16", "config encoder_dtype 'bf16': expected bfloat16"),
        ("remat", "nothing", "config remat 'nothing': no such policy, expected None or one of .*nothing_saveable"),
    ],
)
def test_a_typo_is_named(field, value, says):
    with pytest.raises(InputError, match=says):
        task_of(**{field: value})
