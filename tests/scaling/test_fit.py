"""Fits: what a law through noisy points says holds as often as it claims to."""

from __future__ import annotations

import math

import numpy as np
import pytest

from var_jax.errors import InputError
from var_jax.scaling.curves import Curve, front
from var_jax.scaling.fit import fit_power_law, power_of_ten, predict

SEEDS = 100

# points, factor between the smallest and the largest x, exponent, E, relative noise, E as told (None: fitted),
# how wide the median interval may be, over the exponent.
LAWS = {
    "no E": (8, 200, -0.2, 0.0, 0.01, 0.0, 0.08),
    "few points": (6, 200, -0.2, 0.0, 0.02, 0.0, 0.2),
    "flat, as error rates are": (12, 100, -0.01, 0.0, 0.001, 0.0, 0.12),
    "E given": (8, 200, -0.25, 2.0, 0.002, 2.0, 0.04),
    "E fitted": (8, 200, -0.25, 2.0, 0.002, None, 0.25),
}


def points(name: str, seed: int):
    count, factor, exponent, offset, noise, _, _ = LAWS[name]
    random = np.random.default_rng((seed, count))
    x = np.geomspace(1e5, 1e5 * factor, count)
    law = lambda x: offset + 3.0 * (x / 1e4) ** exponent
    again = random.standard_normal()
    return x, law(x) * (1 + noise * random.standard_normal(count)), 4 * x[-1], law(4 * x[-1]) * (1 + noise * again)


@pytest.mark.parametrize("name", LAWS)
def test_intervals_hold_as_often_as_they_claim(name):
    _, _, exponent, offset, _, told, widest = LAWS[name]
    inside, widths, offset_inside = 0, [], 0
    for seed in range(SEEDS):
        x, y, _, _ = points(name, seed)
        law = fit_power_law(x, y, told, seed, draws=200)
        inside += exponent in law.exponent_interval
        widths.append(law.exponent_interval.width / abs(exponent))
        offset_inside += law.irreducible_interval is not None and offset in law.irreducible_interval
    print(f"{name}: {inside} of {SEEDS}, width over the exponent {np.median(widths):.3f} (at most {max(widths):.3f})")
    assert 90 <= inside <= 99
    assert np.median(widths) < widest
    if told is None:
        assert 90 <= offset_inside <= 99


@pytest.mark.parametrize("name", ["no E", "E given"])
def test_predictions_hold_as_often_as_they_claim(name):
    inside = 0
    for seed in range(SEEDS):
        x, y, at, reached = points(name, seed)
        inside += reached in predict(x, y, at, LAWS[name][5], seed, draws=200).interval
    assert 90 <= inside <= 99


def curves(seed: int, models: int = 8):
    """L = 3 N^-0.35 + 4 T^-0.3 (in thousands and ten thousands), whose front falls as C^(-0.105 / 0.65)."""
    random = np.random.default_rng((seed, 9))
    tokens = np.geomspace(2e4, 1e9, 40)
    for n in np.geomspace(5e3, 1e6, models):
        loss = 3 * (n / 1e3) ** -0.35 + 4 * (tokens / 1e4) ** -0.3
        loss *= (1 + 0.005 * random.standard_normal()) * (1 + 0.001 * random.standard_normal(len(tokens)))
        yield Curve(f"{n:.0f}", n, tokens, 6 * n * tokens, {"loss": loss})


def test_the_front_over_compute_has_its_own_exponent():
    inside, truth = 0, -0.35 * 0.3 / 0.65
    for seed in range(SEEDS):
        x, y = front(list(curves(seed)), "loss", "flops").points()
        law = fit_power_law(x, y, 0.0, seed, draws=200)
        inside += truth in law.exponent_interval
        assert law.exponent == pytest.approx(truth, rel=0.03)
    assert 90 <= inside <= 99


def test_a_front_never_rises_and_nobody_is_below_it():
    own = list(curves(0))
    best = front(own, "loss", "flops")
    assert np.all(np.diff(best.y) <= 0)
    for curve in own:
        inside = (curve.flops >= best.x[0]) & (curve.flops <= best.x[-1])
        there = np.exp(np.interp(np.log(curve.flops[inside]), np.log(best.x), np.log(best.y)))
        assert np.all(curve.figures["loss"][inside] >= there * 0.99)


def test_a_law_without_noise_is_found_exactly():
    x = np.geomspace(1e6, 1e9, 7)
    law = fit_power_law(x, 1.5 + (2e-5 * x) ** -0.3, None, draws=50)
    assert law.exponent == pytest.approx(-0.3, abs=1e-4)
    assert law.irreducible == pytest.approx(1.5, abs=1e-3)
    assert law.log_beta == pytest.approx(math.log(2e-5), abs=1e-2)
    assert law.pearson == pytest.approx(-1.0, abs=1e-6)
    assert law(1e10) == pytest.approx(1.5 + (2e-5 * 1e10) ** -0.3, abs=1e-3)


def test_flat_laws_have_betas_beyond_floats():
    law = fit_power_law([1e6, 1e7, 1e8], [0.9, 0.8995, 0.899], draws=50)
    assert law.log_beta > 0 or law.log_beta < -100
    assert "e" in law.equation("N")
    assert power_of_ten(300 * math.log(10)) == "1.00e+300"
    assert power_of_ten(math.log(0.25)) == "0.25"


@pytest.mark.parametrize(
    ("x", "y", "told", "says"),
    [
        ([1, 2], [2, 1], 0.0, "2 points"),
        ([1, 2, 3], [3, 2, 1], None, "needs 4 or more"),
        ([1, 2, 3], [3, 2, 1], 1.5, "above 1.5"),
        ([1, 1, 1], [3, 2, 1], 0.0, "one x"),
        ([1, 2, 3], [3, float("nan"), 1], 0.0, "expected x above 0"),
    ],
)
def test_points_that_have_no_law(x, y, told, says):
    with pytest.raises(InputError, match=says):
        fit_power_law(x, y, told)
