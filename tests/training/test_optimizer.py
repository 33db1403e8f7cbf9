"""Schedules against the reference's six, AdamW against its definition, and what decays."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from var_jax.errors import InputError
from var_jax.training.optimizer import AdamW, LearningRate, WeightDecay

STORED = json.loads((Path(__file__).parents[1] / "golden" / "schedules.json").read_text())
# The golden file's names, which are the reference's, and what they are here.
NAMES = {
    "cos": ("cosine", 0.0),
    "lin": ("linear", 0.15),
    "lin0": ("linear", 0.05),
    "lin00": ("linear", 0.0),
    "lin0.6": ("two_slopes", 0.6),
    "exp": ("exponential", 0.15),
}


@pytest.mark.parametrize("name", NAMES)
def test_golden_schedules(name):
    kind, turn = NAMES[name]
    rate = LearningRate(
        kind, STORED["peak_lr"], STORED["total_steps"], STORED["warmup_steps"], STORED["final_ratio"], turn
    )
    decay = WeightDecay(STORED["weight_decay_start"], STORED["weight_decay_end"], STORED["total_steps"])
    assert len(STORED["schedules"][name]) > 20
    for step, expected_rate, expected_decay in STORED["schedules"][name]:
        np.testing.assert_allclose(rate(step), expected_rate, rtol=2e-5, atol=1e-12)
        np.testing.assert_allclose(decay(step), expected_decay, rtol=1e-5)


def test_impossible_schedules_are_named():
    with pytest.raises(InputError, match="schedule 'cos': expected one of cosine"):
        LearningRate("cos", 1.0, 10, 1)
    with pytest.raises(InputError, match="warm-up 20 at most the 10 steps"):
        LearningRate("linear", 1.0, 10, 20)


def test_three_steps_by_hand():
    """Clip, moments, decay times the rate, in float64 numpy."""
    rate, decay = LearningRate("linear", 0.1, 10, 2), WeightDecay(0.5, 0.1, 10)
    optimizer = AdamW(rate, decay, (0.9, 0.95), clip=1.0, decayed=("kernel$",)).transformation
    rng = np.random.default_rng(0)
    params = {"a": {"kernel": rng.standard_normal(4)}, "bias": rng.standard_normal(3)}
    ours = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    state = optimizer.init(ours)
    mean, square = (jax.tree.map(np.zeros_like, params) for _ in range(2))
    for step in range(3):
        grads = jax.tree.map(lambda x: 3 * rng.standard_normal(x.shape), params)
        updates, state = optimizer.update(jax.tree.map(jnp.float32, grads), state, ours)
        ours = jax.tree.map(jnp.add, ours, updates)
        norm = np.sqrt(sum(np.sum(g**2) for g in jax.tree.leaves(grads)))
        grads = jax.tree.map(lambda g, n=norm: g / max(n, 1.0), grads)
        mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mean, grads)
        square = jax.tree.map(lambda s, g: 0.95 * s + 0.05 * g**2, square, grads)
        lr, wd = float(rate(step)), float(decay(step))
        corrected = jax.tree.map(
            lambda m, s, n=step + 1: (m / (1 - 0.9**n)) / (np.sqrt(s / (1 - 0.95**n)) + 1e-8), mean, square
        )
        shrink = {"a": {"kernel": 1 - lr * wd}, "bias": 1.0}
        params = jax.tree.map(lambda p, c, k, r=lr: k * p - r * c, params, corrected, shrink)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), ours, params)
