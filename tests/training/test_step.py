"""The step that one CPU takes is the step that other machines take, in less memory."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training.programs import adamw, on_one_device
from var_jax.cpu.backend import ONE_CPU
from var_jax.models.backend import XLA, Backend
from var_jax.training.step import _jitted

WIDTH = 256


@dataclasses.dataclass(frozen=True)
class Layers:
    """A task of two layers whose kernels may be a stack or a tuple."""

    backend: Backend
    decayed = ("kernel$",)
    post_update = None

    def init(self, key):
        kernels = jax.random.normal(key, (2, WIDTH, WIDTH)) * WIDTH**-0.5
        return {"blocks": {"mlp_in_kernel": kernels}, "bias": jnp.ones(WIDTH)}

    def new_counts(self):
        return None

    def loss(self, params, fixed, batch, key, step, scales=None):
        x = batch["x"]
        for layer in range(2):
            x = jnp.tanh(x @ params["blocks"]["mlp_in_kernel"][layer])
        loss = jnp.mean(jnp.square(x - params["bias"]))
        return loss, ({"error": loss}, None)


def _program(accumulate, backend):
    optimizer = adamw(decay=0.1, betas=(0.9, 0.95), clip=0.01, decayed=["kernel$"])
    return on_one_device(Layers(backend), optimizer, 4, accumulate=accumulate, ema_decay=0.9)


def _batches():
    rows = np.random.default_rng(0).standard_normal((4, 4, WIDTH), np.float32)
    rows[3, 0, 0] = np.nan
    return [{"x": x} for x in rows]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_one_cpu_changes_nothing(accumulate):
    """Parameters, their average and both moments after three steps; a fourth whose loss is no number keeps all."""
    ends = []
    for backend in (XLA, ONE_CPU):
        step = _program(accumulate, backend)
        state = step.first_state()
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
        _program(2, backend).lower({}, _batches()[0]).compile().memory_analysis().temp_size_in_bytes
        for backend in (XLA, ONE_CPU)
    )
    size = 4 * 2 * WIDTH**2
    assert plain - one_cpu >= (0.9 * size if jax.__version_info__ >= (0, 12) else -0.1 * size)


def test_equal_programs_are_traced_once():
    """Two runs of one config in a process share their compiled step."""
    first, second = _program(1, XLA), _program(1, XLA)
    assert first is not second
    assert first == second
    assert hash(first) == hash(second)
    assert _jitted(first) is _jitted(second)
    assert _jitted(first) is not _jitted(_program(2, XLA))
