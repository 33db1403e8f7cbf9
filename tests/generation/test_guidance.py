"""Schedules of guidance, and the settings spread over scales."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from var_jax.errors import InputError
from var_jax.generation.guidance import Schedule
from var_jax.generation.settings import check_settings, make_controls
from var_jax.pyramid import Pyramid

FIVE = Pyramid((1, 2, 3, 4, 5))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linear", [0, 1, 2, 3, 4]),
        ("constant", [4, 4, 4, 4, 4]),
        ("interval:0.25,0.5", [0, 4, 4, 0, 0]),
        ("interval:0,1", [4, 4, 4, 4, 4]),
        ("power:2", [0, 0.25, 1, 2.25, 4]),
        ("power:1", [0, 1, 2, 3, 4]),
        ("power:0", [4, 4, 4, 4, 4]),
    ],
)
def test_strength_of_each_scale(text, expected):
    np.testing.assert_allclose(Schedule.parse(text).strengths(4.0, FIVE), expected)
    np.testing.assert_array_equal(Schedule.parse(text).strengths(0.0, FIVE), np.zeros(5))  # 0 is none


def test_a_single_scale_counts_as_the_finest():
    for text in ("linear", "constant", "power:3", "interval:0.5,1"):
        np.testing.assert_array_equal(Schedule.parse(text).strengths(2.0, Pyramid((4,))), [2.0])


def test_the_strength_may_be_traced():
    traced = jax.jit(lambda strength: Schedule.parse("power:2").strengths(strength, FIVE))
    np.testing.assert_allclose(traced(4.0), [0, 0.25, 1, 2.25, 4])


@pytest.mark.parametrize(
    "text",
    ["cosine", "", "linear:1", "interval", "interval:0.5", "interval:0.8,0.2", "interval:-1,1", "interval:0,nan"]
    + ["power", "power:x", "power:-1", "power:nan", "power:inf", "power:1,2"],
)
def test_schedules_that_there_are_not(text):
    with pytest.raises(InputError, match=f"guidance schedule '{text}': expected linear, constant, interval:LOW,HIGH"):
        Schedule.parse(text)


def test_settings_one_a_scale():
    made = make_controls(FIVE, 16, 1.0, [0, 1, 2, 3, 2**40], 0.5, [1, 1, 1, 1, 0.5], "constant")
    np.testing.assert_array_equal(made.top_k_S, [0, 1, 2, 3, 16])
    np.testing.assert_allclose(made.top_p_S, [0.5] * 5)
    np.testing.assert_allclose(made.temperature_S, [1, 1, 1, 1, 0.5])
    np.testing.assert_allclose(made.guidance_S, [1.0] * 5)


@pytest.mark.parametrize(
    ("setting", "value", "needle"),
    [
        ("top_k", [1, 2], "top_k .*: expected a number, or one for each scale, which are 5"),
        ("top_p", [], "top_p .*: expected a number"),
        ("top_p", [0.5] * 4 + [1.5], "top_p 1.5: expected 0 to 1"),
        ("temperature", [1, 1, 0, 1, 1], "temperature 0: expected a number above 0"),
        ("guidance", [1.0] * 5, r"guidance \[.*\]: expected a number$"),
        ("schedule", "none", "guidance schedule 'none'"),
    ],
)
def test_settings_that_cannot_be(setting, value, needle):
    numbers = {"guidance": 1.0, "top_k": 0, "top_p": 0.0, "temperature": 1.0} | {setting: value}
    with pytest.raises(InputError, match=needle):
        check_settings(**numbers, scales=5)
