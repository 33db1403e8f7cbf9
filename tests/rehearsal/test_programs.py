"""The step that is lowered from shapes is the one that training runs."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from tests.training import tiny
from var_jax.errors import InputError
from var_jax.parallel.mesh import make_mesh
from var_jax.rehearsal.programs import training_step
from var_jax.training.config import load_config

ADVERSARY = {"kind": "patch", "channels": 8, "levels": 2, "norm_groups": 4, "start": 0.0}


def shape_of(argument):
    return jax.ShapeDtypeStruct(argument[1].shape, argument[1].dtype)


def arguments(lowered):
    return jax.tree_util.tree_leaves_with_path(lowered.args_info)


@pytest.mark.campaign
def test_a_tokenizers_step_with_every_loss_compiles_over_eight_devices():
    config = tiny.tokenizer(adversary=ADVERSARY, codebook={"means": True, "reset_every": 2})
    config.batch_size = 16
    mesh = make_mesh(2, 4, 1, jax.devices()[:8])
    lowered = training_step(config, mesh)
    compiled = lowered.compile()
    whole = sum(leaf.dtype.itemsize * leaf.size for leaf in map(shape_of, arguments(lowered)))
    assert compiled.memory_analysis().argument_size_in_bytes < 0.8 * whole
    inputs = compiled.input_shardings[0]
    assert inputs[2]["images"].shard_shape((16, 8, 8, 3)) == (2, 8, 8, 3)


def test_published_sizes_lower_without_weights_or_data():
    mesh = make_mesh(devices=jax.devices()[:1])
    config = load_config("tokenizer_imagenet256", ["batch_size=2", "adversary.kind=none", "model.base_channels=32"])
    shapes = [leaf.shape for _, leaf in arguments(training_step(config, mesh))]
    assert (2, 256, 256, 3) in shapes
    assert (3, 3, 512, 512) in shapes  # LPIPS' network
    config = load_config("var:d16", ["batch_size=2", "model.preset=d2", "data.store=somewhere"])
    shapes = [leaf.shape for _, leaf in arguments(training_step(config, mesh))]
    assert (2, 680) in shapes
    assert (2, 256, 256, 3) not in shapes


def test_what_cannot_be(tmp_path):
    mesh = make_mesh(devices=jax.devices()[:8])
    with pytest.raises(InputError, match="batch size .of a micro-batch. 12 does not divide over 8 parts"):
        training_step(load_config("shapes_tokenizer", ["batch_size=12"]), mesh)
    with pytest.raises(InputError, match="rehearse with 'patch'"):
        training_step(load_config("shapes_tokenizer", ["adversary.kind=dino"]), mesh)


def test_the_lowered_step_is_the_one_that_training_runs(tmp_path):
    """Executed on a run's own state and batch it gives that run's next parameters."""
    from etils import epath

    from tests.training.runs import equal
    from var_jax.training.loop import Run

    config = tiny.tokenizer()
    run = Run(config, epath.Path(tmp_path / "run"))
    try:
        batch = {
            "images": np.zeros((8, 8, 8, 3), np.uint8),
            "labels": np.zeros(8, np.int32),
        }
        batch = run._put(batch)
        with jax.set_mesh(run.mesh):
            compiled = training_step(config, run.mesh).compile()
            state = jax.tree.map(lambda x: x.copy(), run.state)
            ours = compiled(run.state, run.fixed, batch)[0]
            theirs = run.program(state, run.fixed, batch)[0]
        equal(jax.device_get(ours.params), jax.device_get(theirs.params))
    finally:
        run.close()
