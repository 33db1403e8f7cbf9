"""Meshes and sharding rules: what goes where, and one clear line where it cannot."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from var_jax.errors import InputError
from var_jax.parallel.mesh import batch_sharding, check_batch, make_mesh
from var_jax.parallel.rules import Constrain, placed, shardings, table

RULES = [("mlp/kernel$", (None, "fsdp", "tensor")), ("kernel$", ("fsdp",))]


def tree():
    leaf = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
    return {
        "params": {"mlp": {"kernel": leaf(3, 8, 4)}, "out": {"kernel": leaf(8, 2), "bias": leaf(2)}},
        "step": leaf(),
    }


def test_mesh_sizes():
    assert dict(make_mesh().shape) == {"data": 8, "fsdp": 1, "tensor": 1}
    assert dict(make_mesh(2, -1, 2).shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    assert dict(make_mesh(1, 1, 1, jax.devices()[:1]).shape) == {"data": 1, "fsdp": 1, "tensor": 1}


@pytest.mark.parametrize("sizes", [(3, 1, 1), (2, 2, 1), (-1, -1, 1), (0, 1, 1), (-1, 3, 1), (16, 1, 1)])
def test_mesh_errors(sizes):
    with pytest.raises(InputError, match="mesh"):
        make_mesh(*sizes)


def test_first_rule_that_matches_decides():
    mesh = make_mesh(2, 2, 2)
    places = shardings(mesh, RULES, tree())
    assert places["params"]["mlp"]["kernel"].spec == jax.P(None, "fsdp", "tensor")
    assert places["params"]["out"]["kernel"].spec == jax.P("fsdp")
    assert places["params"]["out"]["bias"].spec == places["step"].spec == jax.P()
    text = table(placed(tree(), places))
    assert "params/mlp/kernel" in text.splitlines()[0]
    assert "replicated" in text
    assert text.splitlines()[-1].endswith("MiB per device in all")


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([("bias", ("fsdp", None))], "rule has 2 axes, the array 1"),
        ([("bias", ("model",))], "'model' is none of data, fsdp, tensor"),
        ([("mlp/kernel", ("fsdp",))], r"mlp/kernel \(3, 8, 4\): an axis of 3 does not divide over fsdp = 2"),
    ],
)
def test_rules_that_cannot_be(rules, message):
    with pytest.raises(InputError, match=message):
        shardings(make_mesh(2, 2, 2), rules, tree())


def test_batches():
    mesh = make_mesh(2, 2, 2)
    check_batch(mesh, 8)
    with pytest.raises(InputError, match="batch size 6 does not divide over 4 parts"):
        check_batch(mesh, 6)
    x = jax.device_put(jnp.zeros((8, 3)), batch_sharding(mesh))
    assert x.addressable_shards[0].data.shape == (2, 3)


def test_constraints_by_name():
    mesh = make_mesh(2, 2, 2)
    constrain = Constrain(mesh)
    assert constrain == Constrain(mesh)
    assert hash(constrain) == hash(Constrain(mesh))
    out = jax.jit(lambda x: constrain(x, "hidden"))(jnp.zeros((4, 3, 6)))
    assert out.sharding.shard_shape(out.shape) == (1, 3, 3)
    x = jnp.zeros(3)
    assert constrain(x, "unknown") is x
