"""The comparison of steps from pictures and from a store, at the smallest size: every figure is there."""

from __future__ import annotations

import math

import pytest

from studies.stored_tokens import measure
from var_jax.models.quantizer import QuantizerConfig
from var_jax.models.tokenizer import TokenizerConfig
from var_jax.pyramid import Pyramid


@pytest.mark.campaign
def test_every_figure_is_measured(tmp_path):
    tokenizer = TokenizerConfig(QuantizerConfig(Pyramid((1, 2, 4)), 16, 4), 8, (1, 2), 1, 1, norm_groups=4)
    figures = measure(tmp_path, tokenizer, "d1", batch=2, rounds=2)
    seconds = {f"{kind}_{clock}" for kind in ("pictures", "store") for clock in ("wall", "processor")}
    assert figures.keys() == seconds | {"ratio_wall", "ratio_processor", "bytes_per_picture"}
    assert all(math.isfinite(value) and value > 0 for value in figures.values())
    assert figures["bytes_per_picture"] > 12 + 21  # class and place, and a byte per token
