"""Turns, medians, ratios pair by pair, and the count of compiled programs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from var_jax.benchmark import timing
from var_jax.benchmark.timing import Timing, compilations, ratios, take_turns
from var_jax.errors import InputError


def test_a_timing_sets_the_first_call_apart():
    told = Timing(9.0, (2.0, 1.0, 4.0)).to_dict()
    assert told == {
        **{"median": 2.0, "low": 1.0, "high": 4.0},
        **{"first_call": 9.0, "compiling": 7.0, "seconds": [2.0, 1.0, 4.0]},
    }
    assert Timing(1.0, (2.0,)).compiling == 0.0


def test_ratios_are_of_pairs():
    assert ratios(Timing(0, (1.0, 2.0)), Timing(0, (3.0, 3.0))) == [3.0, 1.5]


def test_sides_take_turns_and_pause(monkeypatch):
    calls, pauses = [], []
    monkeypatch.setattr(timing.time, "sleep", pauses.append)
    runs = {name: lambda name=name: calls.append(name) or float(len(calls)) for name in ("ours", "reference")}
    found = take_turns(runs, repeats=2, warmup=1, pause=0.25)
    assert calls == ["ours", "reference"] * 4
    assert found == {"ours": Timing(1.0, (5.0, 7.0)), "reference": Timing(2.0, (6.0, 8.0))}
    assert pauses == [0.25] * 4
    take_turns({"ours": lambda: calls.append("alone") or 1.0}, repeats=3, again=2)
    assert len(pauses) == 4 and calls[8:] == ["alone"] * 5  # alone nobody waits, and no call is made in vain
    del calls[:]
    found = take_turns(runs, repeats=2, again=1)
    assert calls == ["ours", "reference"] * 2 + ["ours", "ours", "reference", "reference"] * 2
    assert found["reference"] == Timing(2.0, (8.0, 12.0))
    with pytest.raises(InputError, match="repeats 0: expected 1 or more"):
        take_turns(runs, repeats=0)


def test_what_is_compiled_is_counted_inside_the_block_only():
    run = jax.jit(lambda x: x * 3 + 7)
    with compilations() as compiled:
        run(jnp.ones(11))
        before = len(compiled)
        run(jnp.ones(11))
        assert len(compiled) == before >= 1
    run(jnp.ones(13))
    assert len(compiled) == before
