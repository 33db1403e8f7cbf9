"""Seconds by phase: none counted twice, summed over the runs of a training, steps done again set apart."""

from __future__ import annotations

import json
import time

import pytest
from etils import epath

from tests.training import tiny
from var_jax.errors import InputError
from var_jax.training.goodput import PHASES, Spent, in_words, summed
from var_jax.training.loop import FINISHED, train
from var_jax.training.profiling import Window

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture
def clock(monkeypatch):
    """`clock.now` is the time, in seconds."""

    class Clock:
        now = 100.0

    monkeypatch.setattr(time, "monotonic", lambda: Clock.now)
    return Clock


def test_every_second_has_one_phase(clock):
    spent = Spent()
    clock.now += 5
    spent.begin(20)
    with spent.on("data"):
        clock.now += 1
    clock.now += 2
    with spent.on("evaluation"):
        clock.now += 3
        with spent.on("compile"):
            clock.now += 10
        clock.now += 4
    with spent.on("checkpoint"):
        clock.now += 6
    found = spent.read()
    expected = {"init": 5, "compile": 10, "data": 1, "step": 2, "checkpoint": 6, "evaluation": 7}
    assert {phase: found[phase] for phase in PHASES} == expected
    assert (found["seconds"], found["from_step"]) == (31, 20)


def line(run, reached, from_step, **seconds):
    phases = dict.fromkeys(PHASES, 0.0) | seconds
    return {"step": reached, "goodput": {"run": run, "from_step": from_step, "seconds": sum(phases.values()), **phases}}


def test_runs_are_summed():
    lines = [
        line(1000, 5, 0, init=4.0, step=6.0),
        line(1000, 10, 0, init=4.0, step=16.0, data=4.0),  # of each run the last line counts; killed after it
        {"step": 10, "kind": "validation", "loss": 1.0},
        line(1050, 16, 8, init=6.0, step=10.0, checkpoint=1.0),
    ]
    found = summed(lines)
    assert (found["runs"], found["seconds"], found["init"], found["step"]) == (2, 41.0, 10.0, 26.0)
    assert found["done_again"] == 20.0 * 2 / 10  # two of ten steps
    assert found["between"] == 50.0 - 24.0
    assert in_words(found).startswith("41 s in 2 runs: init 24%, compile 0%, data 10%, step 63%, checkpoint 2%")
    assert in_words(found).endswith("; repeated steps 10%")
    assert summed([]) == {"runs": 0, "seconds": 0, **dict.fromkeys(PHASES, 0), "done_again": 0, "between": 0}


def test_a_training_says_where_its_time_went(tmp_path):
    assert train(tiny.tokenizer(), str(tmp_path / "run"), profile="2:3") == FINISHED
    lines = [json.loads(text) for text in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    runs = [line["goodput"] for line in lines if line["kind"] in ("train", "run")]
    assert len(runs) == 4
    for found in runs:
        assert found["seconds"] == pytest.approx(sum(found[phase] for phase in PHASES), abs=0.01)
    assert all(runs[-1][phase] > 0 for phase in PHASES)
    (total,) = (line for line in lines if line["kind"] == "goodput")
    assert total["step"] == 6
    assert total["goodput"]["runs"] == 1
    assert total["goodput"]["seconds"] == pytest.approx(runs[-1]["seconds"])
    assert "s in 1 run: init" in (tmp_path / "run" / "log.txt").read_text()
    assert list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))


@pytest.mark.parametrize("text", ["", "5", "5:4", "0:3", "a:b", "1:2:3"])
def test_no_window(tmp_path, text):
    with pytest.raises(InputError, match="expected FIRST:LAST"):
        Window(text, epath.Path(tmp_path))
