"""Sampling options: defaults that are stated once, options that cannot be, and settings over the scales."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import inspect
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import _common
from var_jax.app import answers
from var_jax.bundle import Bundle
from var_jax.errors import InputError
from var_jax.evaluation.expected import PUBLISHED_SAMPLING
from var_jax.evaluation.pictures import Drawing
from var_jax.evaluation.small_data import measure
from var_jax.generation.settings import DEFAULTS, PLAIN, SamplingOptions, Settings
from var_jax.pyramid import Pyramid

FIVE = Pyramid((1, 2, 3, 4, 5))
OPTIONS = dataclasses.asdict(DEFAULTS)
DOCS = Path(__file__).parents[2] / "docs"


def defaults_of(function):
    """The default of each sampling option that a function has."""
    parameters = inspect.signature(function).parameters
    return {name: parameters[name].default for name in OPTIONS if name in parameters}


@pytest.mark.parametrize("command", ["sample", "edit", "evaluate", "measure", "reject"])
def test_every_command_has_the_same_defaults(command):
    parser = argparse.ArgumentParser()
    importlib.import_module(f"var_jax.cli.{command}").add_arguments(parser)
    given = {name: parser.get_default(name) for name in OPTIONS}
    assert given == OPTIONS | {name: None for name in given if command in ("measure", "reject") and name not in PLAIN}


def test_notebook_page_and_config_have_the_defaults_of_the_commands():
    assert defaults_of(Bundle.generate) == OPTIONS
    assert defaults_of(measure) == {name: OPTIONS[name] for name in PLAIN}
    assert answers.DEFAULTS is DEFAULTS
    assert _common.transformer("d16").sample_guidance == DEFAULTS.guidance


def test_the_published_protocol_is_as_published():
    published = {
        "guidance": 1.5,
        "top_k": 900,
        "top_p": 0.96,
        "temperature": 1.0,
        "smooth": False,
        "schedule": "linear",
    }
    assert dataclasses.asdict(PUBLISHED_SAMPLING) == published
    assert Drawing().settings == published


def test_the_page_about_sampling_names_the_defaults():
    text = (DOCS / "sampling.md").read_text(encoding="utf-8")
    for name in ("guidance", "schedule", "top_k", "top_p", "temperature"):
        value = OPTIONS[name]
        value = value if isinstance(value, str) else f"{value:g}"
        assert f"| `--{name.replace('_', '-')} {value}` |" in text


def test_one_number_per_scale():
    options = {"guidance": 1.0, "top_k": [0, 1, 2, 3, 2**40], "top_p": 0.5, "temperature": [1, 1, 1, 1, 0.5]}
    made = Settings.create(FIVE, **options, schedule="constant")
    np.testing.assert_array_equal(made.top_k_S, [0, 1, 2, 3, 2**31 - 1])  # beyond any codebook either way
    np.testing.assert_allclose(made.top_p_S, [0.5] * 5)
    np.testing.assert_allclose(made.temperature_S, [1, 1, 1, 1, 0.5])
    np.testing.assert_allclose(made.guidance_S, [1.0] * 5)


def test_numbers_are_traced_and_only_switches_are_static():
    plain, turned = Settings.create(FIVE), Settings.create(FIVE, guidance=4.0, top_k=0, top_p=0.5, temperature=2.0)
    assert jax.tree.structure(plain) == jax.tree.structure(turned)
    assert len(jax.tree.leaves(plain)) == 4
    others = [Settings.create(FIVE, guidance=0.0), Settings.create(FIVE, smooth=True), plain.unguided()]
    assert [made.guided for made in (plain, *others)] == [True, False, True, False]
    assert all(jax.tree.structure(made) != jax.tree.structure(plain) for made in others)


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
def test_options_that_cannot_be(setting, value, needle):
    options = {"guidance": 1.0, "top_k": 0, "top_p": 0.0, "temperature": 1.0} | {setting: value}
    with pytest.raises(InputError, match=needle):
        SamplingOptions(**options).check(scales=5)
    with pytest.raises(InputError, match=needle):
        Settings.create(FIVE, **options)


def test_without_a_model_a_list_may_have_any_length():
    SamplingOptions(top_k=[1, 2], temperature=[1.0] * 7).check()
    with pytest.raises(InputError, match="top_k 2.5: expected a whole number"):
        SamplingOptions(top_k=[1, 2.5]).check()
