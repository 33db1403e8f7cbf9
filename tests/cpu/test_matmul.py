"""Products in a CPU's order are those of tensordot."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from tests.models.golden_models import relative_error
from var_jax.cpu.matmul import matmul


@pytest.mark.parametrize("rows", [(2, 1), (2, 9), (51,), (52,), (3, 40)])
@pytest.mark.parametrize(("inner", "outer"), [((24,), (16,)), ((24,), (3, 4, 8)), ((4, 8), (24,))])
def test_results_and_gradients(rows, inner, outer):
    keys = jax.random.split(jax.random.key(0), 3)
    x, kernel = jax.random.normal(keys[0], rows + inner), jax.random.normal(keys[1], inner + outer)
    cotangent = jax.random.normal(keys[2], rows + outer)

    def both(function):
        out, pull = jax.vjp(lambda *args: function(*args, len(inner), precision="highest"), x, kernel)
        return out, *pull(cotangent)

    ours = jax.jit(lambda: both(matmul))()
    theirs = jax.jit(lambda: both(jnp.tensordot))()
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape
        assert relative_error(one, other) < 1e-6
