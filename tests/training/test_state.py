"""The step that one CPU takes is the step that other machines take, in less memory."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from var_jax.training.optimizer import make_optimizer
from var_jax.training.state import make_step, new_state

WIDTH = 256


def _loss(params, fixed, batch, key, step):
    """Of two layers whose kernels may be a stack or a tuple."""
    x = batch["x"]
    for layer in range(2):
        x = jnp.tanh(x @ params["blocks"]["mlp_in_kernel"][layer])
    loss = jnp.mean(jnp.square(x - params["bias"]))
    return loss, ({"error": loss}, None)


def _optimizer():
    return make_optimizer(lambda _: 1e-2, lambda _: 0.1, (0.9, 0.95), 0.01, ["kernel$"])


def _state():
    kernels = jax.random.normal(jax.random.key(0), (2, WIDTH, WIDTH)) * WIDTH**-0.5
    return new_state({"blocks": {"mlp_in_kernel": kernels}, "bias": jnp.ones(WIDTH)}, _optimizer(), True, None)


def _step(accumulate, one_cpu):
    step = make_step(_loss, _optimizer(), 0, accumulate, 0.9, one_cpu=one_cpu)
    return jax.jit(step, donate_argnums=0, static_argnums=3)


def _batches():
    rows = np.random.default_rng(0).standard_normal((4, 4, WIDTH), np.float32)
    rows[3, 0, 0] = np.nan
    return [{"x": x} for x in rows]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_one_cpu_changes_nothing(accumulate):
    """Parameters, their average and both moments after three steps; a fourth whose loss is no number keeps all."""
    ends = []
    for one_cpu in (False, True):
        step, state = _step(accumulate, one_cpu), _state()
        for batch in _batches()[:3]:
            state, metrics = step(state, {}, batch)
        assert metrics["gradient_norm"] > 0.01  # clipped
        good = jax.device_get(state)
        state, _ = step(state, {}, _batches()[3])
        assert state.bad_step == 3
        jax.tree.map(np.testing.assert_array_equal, good[2:], jax.device_get(state)[2:])
        ends.append(good)
    moved = ends[0].params["bias"] - 1
    assert np.abs(moved).min() > 1e-3
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7), *ends)


def test_one_cpu_copies_no_moments():
    """An array of the parameters' size less than left to itself; XLA of older versions sees through it."""
    plain, one_cpu = (
        _step(2, one_cpu).lower(_state(), {}, _batches()[0]).compile().memory_analysis().temp_size_in_bytes
        for one_cpu in (False, True)
    )
    size = 4 * 2 * WIDTH**2
    assert plain - one_cpu >= (0.9 * size if jax.__version_info__ >= (0, 12) else -0.1 * size)
