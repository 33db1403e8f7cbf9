"""Between evaluations nothing compiles after the first step, and figures are fetched once a reported step."""

from __future__ import annotations

import contextlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from tests.interop.checkpoints import drawn_model
from tests.training import tiny
from var_jax.benchmark.timing import compilations
from var_jax.model_directory import save_model
from var_jax.models.tokenizer import TokenizerConfig
from var_jax.training.loop import FINISHED, Run
from var_jax.training.step import StepProgram


class Watch:
    """Counts what is compiled and fetched while it is on, and lets JAX refuse every transfer that nobody asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fetched, self.compiled = 0, []
        self._on, self._asked, self._opened = False, False, contextlib.ExitStack()
        array_type, get = type(jnp.zeros(())), jax.device_get
        value = array_type._value  # what float(), int(), bool() and device_get() of an array look at

        def device_get(tree):
            self.fetched += self._on
            self._asked = True
            try:
                return get(tree)
            finally:
                self._asked = False

        def looked_at(array):
            self.fetched += self._on and not self._asked
            return value.fget(array)

        monkeypatch.setattr(jax, "device_get", device_get)
        monkeypatch.setattr(array_type, "_value", property(looked_at))

    def start(self) -> None:
        if not self._on:
            self._opened.enter_context(jax.transfer_guard("disallow"))
            self.compiled = self._opened.enter_context(compilations())
        self._on = True

    def stop(self) -> None:
        self._on = False
        self._opened.close()


def test_the_watch_sees_what_it_is_for(monkeypatch):
    watch, x = Watch(monkeypatch), jnp.arange(3.0)
    watch.start()
    float(jax.jit(lambda x: x[0] * 5)(x))
    jax.device_get({"a": x, "b": x})
    with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device transfer"):
        x + np.ones(3)
    watch.stop()
    x + np.ones(3)
    assert watch.fetched == 2
    assert watch.compiled


@pytest.mark.parametrize("stage", ["tokenizer", "transformer"])
def test_steps_after_the_first_compile_nothing_and_fetch_once_a_report(tmp_path, monkeypatch, stage):
    changes = {"report_every": 4, "checkpoint_every": 100}
    config = tiny.tokenizer(**changes)
    if stage == "transformer":
        save_model(tmp_path / "tokenizer", drawn_model(TokenizerConfig.from_fields(**config.model), transformer=None))
        config = tiny.transformer(tmp_path / "tokenizer", **changes)
    run = Run(config, epath.Path(tmp_path / "run"), jax.devices()[:1])
    step, watch = StepProgram.__call__, Watch(monkeypatch)

    def watched_step(*given):
        result = step(*given)
        watch.start()
        return result

    monkeypatch.setattr(StepProgram, "__call__", watched_step)
    monkeypatch.setattr(run, "_check_finite", watch.stop)  # before the last checkpoint; the last evaluation follows
    monkeypatch.setattr(run, "evaluate", lambda step: None)
    assert run.go() == FINISHED
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    reported = [line["step"] for line in lines if line["kind"] == "train"]
    assert reported == [4, 6]
    assert watch.fetched == len(reported)
    assert watch.compiled == []
