"""Least work by phase: its operations are those of `models.costs`, its time follows from the limits by hand."""

from __future__ import annotations

import pytest

from var_jax.benchmark import work
from var_jax.benchmark.machine import Limits
from var_jax.benchmark.models import preset
from var_jax.benchmark.work import Phase
from var_jax.models import costs
from var_jax.models.baselines import BaselineConfig
from var_jax.models.quantizer import QuantizerConfig
from var_jax.models.tokenizer import TokenizerConfig
from var_jax.pyramid import Pyramid

D16, SHARED = preset("d16"), preset("d2-s", "1,2,3", 32)


@pytest.mark.parametrize("model", [D16, SHARED], ids=["d16", "shared adaln"])
@pytest.mark.parametrize("guided", [True, False])
def test_sampling_adds_up_to_its_cost(model, guided):
    phases = work.sampling(model.transformer, model.tokenizer, 3, guided, "float32")
    cost = costs.sample_flops(model.transformer, model.tokenizer, guided)
    assert sum(phase.flops for phase in phases) == pytest.approx(3 * cost, rel=1e-12)
    assert len(phases) == len(model.transformer.pyramid) + 2


def test_sampling_in_raster_order_adds_up_to_its_cost():
    tokenizer = TokenizerConfig(QuantizerConfig(Pyramid((4,))), base_channels=32)
    raster = BaselineConfig.from_dict(SHARED.transformer.to_dict() | {"pyramid": [4], "inputs": "previous_token"})
    phases = work.sampling(raster, tokenizer, 1, True, "float32")
    assert sum(phase.flops for phase in phases) == pytest.approx(costs.sample_flops(raster, tokenizer, True), rel=1e-12)
    assert len(phases) == 16 + 2


def test_each_scale_reads_all_weights_and_the_coarser_keys_and_values():
    phases = work.sampling(D16.transformer, D16.tokenizer, 1, True, "bfloat16")
    second, c = phases[2], D16.transformer
    weights = 12 * c.depth * c.width**2 + c.width * c.codebook_size + c.code_width * c.width
    assert second.bytes == 2 * (weights + 2 * 2 * c.depth * c.width)  # one earlier position, two rows, k and v


def test_training_is_three_forward_passes_and_the_encoder():
    shapes = D16.transformer, D16.tokenizer
    tokens, pictures = (sum(p.flops for p in work.training(*shapes, 2, flag, "float32")) for flag in (False, True))
    assert pictures - tokens == 2 * costs.encode_flops(D16.tokenizer)
    sums = costs.quantizer_flops(D16.tokenizer, down=True)
    assert tokens == 2 * (3 * costs.transformer_forward_flops(D16.transformer) + sums)
    assert work.tokenizing(D16.tokenizer, 5)[0].flops == 5 * costs.encode_flops(D16.tokenizer)


def test_a_phase_takes_the_longer_of_arithmetic_and_transfers():
    limits = Limits({"float32": 10.0, "bfloat16": 100.0}, 2.0)
    phases = [Phase("a", 50.0, 4.0, "float32"), Phase("b", 50.0, 4.0, "bfloat16")]
    assert [phase.seconds(limits) for phase in phases] == [5.0, 2.0]
    assert work.least_seconds(phases, limits) == 7.0
    assert work.arithmetic_seconds(phases, limits) == 5.5


def test_the_better_of_two_looks_at_the_limits_counts():
    one, two = Limits({"float32": 10.0}, 2.0), Limits({"float32": 8.0}, 3.0)
    assert one.better(two) == Limits({"float32": 10.0}, 3.0)
