"""Every mesh learns what one device learns: parameters after five steps, in float64, where rounding cannot hide a
mistake."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from etils import epath

from tests.training import tiny
from var_jax.errors import InputError
from var_jax.training.loop import Run

STAGES = pytest.mark.parametrize("stage", ["tokenizer", "transformer"])


@pytest.fixture(scope="module")
def tokenizer(tiny_run):
    return tiny_run / "tokenizer"


def wide(stage: str, tokenizer: str, **changes: Any) -> Any:
    """The stage's tiny config in float64."""
    changes = {"dtype": "float64", **changes}
    return tiny.tokenizer(**changes) if stage == "tokenizer" else tiny.transformer(tokenizer, **changes)


def five_steps(config, workdir, devices=None):
    """Parameters before and after, on the host."""
    run = Run(config, epath.Path(workdir), devices)
    first, batches = jax.device_get(run.state.params), run._batches(0)
    with jax.set_mesh(run.mesh):
        for _ in range(5):
            run.state, _ = run.program(run.state, run.fixed, run._put(next(batches)))
    run.close()
    assert int(run.state.bad_step) == -1
    return first, jax.device_get(run.state.params)


@pytest.fixture(scope="module")
def on_one_device(tokenizer, tmp_path_factory):
    """What each stage learns on a single device."""
    root = tmp_path_factory.mktemp("one")
    with jax.enable_x64(True):
        return {
            stage: five_steps(wide(stage, tokenizer), root / stage, jax.devices()[:1])
            for stage in ("tokenizer", "transformer")
        }


@pytest.mark.parametrize(  # data and fsdp alone once each, all three axes together for both stages
    ("stage", "sizes"),
    [
        ("tokenizer", (8, 1, 1)),
        ("transformer", (1, 8, 1)),
        ("tokenizer", (2, 2, 2)),
        ("transformer", (2, 2, 2)),
    ],
)
def test_meshes_learn_the_same(tokenizer, tmp_path, on_one_device, stage, sizes):
    mesh = dict(zip(("data", "fsdp", "tensor"), sizes, strict=True))
    with jax.enable_x64(True):
        _, many = five_steps(wide(stage, tokenizer, mesh=mesh), tmp_path / "many")
    first, one = on_one_device[stage]
    assert {leaf.dtype for leaf in jax.tree.leaves((one, many))} == {np.dtype(np.float64)}
    assert max(np.max(np.abs(a - b)) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(one), strict=True)) > 1e-3
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(many), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-9, err_msg=jax.tree_util.keystr(path))


@STAGES
def test_float64_needs_to_be_switched_on(tokenizer, tmp_path, stage):
    with pytest.raises(InputError, match="JAX_ENABLE_X64=1"):
        Run(wide(stage, tokenizer), epath.Path(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
