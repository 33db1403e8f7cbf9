"""Schedules of guidance, and the rows that it doubles."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from var_jax.errors import InputError
from var_jax.generation.guidance import Schedule, guide, with_no_class
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


def test_each_label_has_its_unguided_row_beside_it():
    rows = with_no_class(jax.numpy.array([4, 1]), 9)
    np.testing.assert_array_equal(rows, [4, 9, 1, 9])
    logits_2BxlxV = np.stack([np.full((1, 2), float(row)) for row in rows])
    np.testing.assert_allclose(guide(logits_2BxlxV, 2.0)[:, 0, 0], [3 * 4 - 2 * 9, 3 * 1 - 2 * 9])
