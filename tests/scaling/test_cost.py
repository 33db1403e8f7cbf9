"""What drawing costs in either order: counts by hand, and the report on small pyramids."""

from __future__ import annotations

import json

import pytest

from var_jax.errors import InputError
from var_jax.models.baselines import PREVIOUS_TOKEN, BaselineConfig
from var_jax.models.costs import transformer_forward_flops, uncached_flops
from var_jax.pyramid import Pyramid
from var_jax.scaling import cost


def config(sides, **changes):
    return BaselineConfig(Pyramid(sides), 16, 4, 3, 2, 8, 2, **changes)


def test_without_a_cache_each_step_is_a_forward_pass_over_what_it_sees():
    """The last step of a prefix: its forward pass, less the logits of the positions before it."""
    own = config((1, 2, 3))
    head = 2 * own.width * own.codebook_size
    adaln = 2 * (own.depth * 6 + 2) * own.width**2
    prefixes = [config(own.pyramid.sides[: k + 1]) for k in range(3)]
    passes = [transformer_forward_flops(one) - adaln for one in prefixes]
    before = [one.pyramid.length - one.pyramid.lengths[-1] for one in prefixes]
    expected = sum(one - head * length for one, length in zip(passes, before, strict=True)) + adaln
    assert uncached_flops(own) == expected


def test_raster_order_by_hand():
    own = config((3,), inputs=PREVIOUS_TOKEN)
    block, adaln = 12 * 8**2, (2 * 6 + 2) * 8**2
    pairs = sum(range(1, 10))
    cached = 9 * (2 * block + 8 * 16) + 8 * 4 * 8 + 2 * 2 * pairs * 8 + adaln
    assert transformer_forward_flops(own) == 2 * cached
    steps = range(1, 10)
    alone = sum(2 * (n * block + 2 * sum(range(1, n + 1)) * 8) + 8 * 16 + (n - 1) * 4 * 8 for n in steps)
    assert uncached_flops(own) == 2 * (alone + adaln)


def test_growth_over_the_published_pyramids():
    rows = [cost.counted(order, side) for side in (256, 512, 1024) for order in cost.ORDERS]
    exponents = {name: cost.growth(rows, name) for name in cost.COUNTED}
    assert exponents["steps"]["raster"] == pytest.approx(2.0)
    assert exponents["steps"]["scales"] < 0.5
    # Without a cache raster order costs about n^2 times as much as with one, and so grows by two more.
    assert exponents["flops_uncached"]["raster"] - exponents["flops_cached"]["raster"] == pytest.approx(2, abs=0.1)
    assert exponents["pairs_uncached"]["raster"] == pytest.approx(6, abs=0.01)  # the paper's O(n^6)
    assert exponents["pairs_uncached"]["scales"] == pytest.approx(4, abs=0.3)  # and O(n^4)
    at_256 = {row["order"]: row for row in rows if row["side"] == 256}
    assert at_256["raster"]["steps"] == 256
    assert at_256["scales"]["steps"] == 10
    assert at_256["raster"]["flops_uncached"] > 15 * at_256["scales"]["flops_uncached"]
    assert at_256["raster"]["flops_cached"] < at_256["scales"]["flops_cached"]  # fewer tokens


@pytest.mark.campaign
def test_the_report(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(cost, "PUBLISHED_SIDES", {32: (1, 2), 64: (1, 2, 4)})
    monkeypatch.setattr(cost, "_CODES", 64)
    said: list[str] = []
    cost.report(tmp_path / "out", "32,64", 16, 1, 2, 600, said.append)
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"cost.json", "cost.md", "cost.png"}
    content = json.loads((tmp_path / "out" / "cost.json").read_text())
    assert [(row["order"], row["side"]) for row in content["rows"]] == [
        ("raster", 32),
        ("scales", 32),
        ("raster", 64),
        ("scales", 64),
    ]
    assert all(row["seconds_1"] > 0 and row["seconds_large"] > 0 for row in content["rows"])
    text = (tmp_path / "out" / "cost.md").read_text()
    assert "| raster | 64 | 16 | 16 |" in text
    assert "| scales, exponent of n |" in text


def test_what_there_is_no_time_for_is_named(monkeypatch):
    said: list[str] = []
    assert cost.measured((256,), 64, 1, 2, 0.0, said.append) == {}
    assert len(said) == 4
    assert all("left out" in line for line in said)


@pytest.mark.parametrize(("sides", "width", "batch"), [("300", 64, 2), ("256", 100, 2), ("256", 64, 1)])
def test_costs_that_cannot_be(tmp_path, sides, width, batch):
    pytest.importorskip("matplotlib")
    with pytest.raises(InputError, match="expected"):
        cost.report(tmp_path, sides, width, 1, batch, 1.0)
