"""The loop on tiny configs of both stages: exact resume, meshes, stopping, and refusals that lose nothing."""

from __future__ import annotations

import json
import math

import jax
import numpy as np
import pytest
from etils import epath

from tests.training import tiny
from tests.training.runs import StopAt, equal, last_state
from var_jax.errors import InputError
from var_jax.training.loop import FINISHED, PREEMPTED, Run, train
from var_jax.training_directory import read_any_model

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture
def finished(tiny_run):
    """Directories of an unbroken run of each stage."""
    return tiny_run


def configs(finished):
    return {"tokenizer": tiny.tokenizer(), "transformer": tiny.transformer(finished / "tokenizer")}


@pytest.mark.parametrize("stage", ["tokenizer", "transformer"])
def test_stopped_and_resumed_is_the_unbroken_run(finished, tmp_path, monkeypatch, stage):
    config = configs(finished)[stage]
    with monkeypatch.context() as patch:
        StopAt(patch, 4)
        assert train(config, str(tmp_path / "run")) == PREEMPTED
    assert train(config, str(tmp_path / "run")) == FINISHED
    broken, whole = last_state(tmp_path / "run"), last_state(finished / stage)
    assert int(whole.step) == 6
    equal(broken, whole)
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "stopped at step 4 of 6" in log
    assert "resumed at step 4 of 6" in log
    assert train(config, str(tmp_path / "run")) == FINISHED  # nothing left to do, nothing changed
    equal(last_state(tmp_path / "run"), whole)


def test_what_a_run_leaves(finished):
    for stage in ("tokenizer", "transformer"):
        folder = finished / stage
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        training = [line for line in lines if line["kind"] == "train"]
        assert [line["step"] for line in training] == [2, 4, 6]
        assert all(math.isfinite(line["loss"]) and line["learning_rate"] > 0 for line in training)
        assert [line["step"] for line in lines if line["kind"] == "validation"] == [6]
        assert len(list((folder / "pictures").iterdir())) == 1
        assert "MiB per device in all" in (folder / "sharding.txt").read_text()
        assert "finished: 6 steps" in (folder / "log.txt").read_text()
        assert json.loads((folder / "training.json").read_text())["config"]["steps"] == 6
    validation = next(line for line in lines if line["kind"] == "validation")
    assert len(validation["loss_by_scale"]) == len(validation["accuracy_by_scale"]) == 3


def test_trained_directories_read_like_imported_ones(finished):
    tokenizer, model = read_any_model(finished / "tokenizer"), read_any_model(finished / "transformer")
    assert tokenizer.transformer_config is None
    assert model.fingerprints["tokenizer"] == tokenizer.fingerprints["tokenizer"]
    state = last_state(finished / "tokenizer")
    equal(tokenizer.tokenizer_params, state.ema)
    assert model.class_names == tuple(
        json.loads((finished / "transformer" / "training.json").read_text())["class_names"]
    )
    assert model.transformer_config.num_classes == len(model.class_names) >= 10


def _three_steps(config, workdir, devices):
    run = Run(config, epath.Path(workdir), devices)
    metrics, batches = [], run._batches(0)
    with jax.set_mesh(run.mesh):
        for _ in range(3):
            run.state, out = run.program(run.state, run.fixed, run._put(next(batches)))
            metrics.append(jax.device_get(out))
    run.close()
    return metrics, jax.device_get(run.state.params)


def test_resume_into_another_mesh(finished, tmp_path):
    config = tiny.transformer(finished / "tokenizer", steps=8)
    shorter = tmp_path / "run"
    first = Run(config, epath.Path(shorter), jax.devices()[:1])
    first.checkpoints.save(first.state, 0)
    first.close()
    fields = tiny.transformer(finished / "tokenizer", steps=8, mesh={"data": 2, "fsdp": 2, "tensor": 2})
    second = Run(fields, epath.Path(shorter))
    second.close()
    assert second.state.params["blocks"]["mlp_in_kernel"].sharding.spec == jax.P(None, "fsdp", "tensor")
    equal(jax.device_get(first.state), jax.device_get(second.state))


def test_accumulated_gradients_are_the_whole_batch_s(finished, tmp_path):
    whole = tiny.transformer(finished / "tokenizer", model={"drop_path": 0.0, "class_drop": 1e-9})
    parts = tiny.transformer(finished / "tokenizer", model={"drop_path": 0.0, "class_drop": 1e-9}, accumulate=4)
    (metrics_a, params_a), (metrics_b, params_b) = (
        _three_steps(config, tmp_path / str(config.accumulate), jax.devices()[:1]) for config in (whole, parts)
    )
    np.testing.assert_allclose(metrics_a[0]["loss"], metrics_b[0]["loss"], rtol=1e-5)
    np.testing.assert_allclose(metrics_a[0]["gradient_norm"], metrics_b[0]["gradient_norm"], rtol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4), params_a, params_b)


def test_first_loss_is_that_of_a_uniform_guess(finished, tmp_path):
    config = tiny.transformer(finished / "tokenizer")
    (first, *_), _ = _three_steps(config, tmp_path / "run", jax.devices()[:1])
    np.testing.assert_allclose(first["loss"], math.log(16), rtol=0.01)


def test_a_loss_that_is_not_finite_stops_the_run_and_saves_nothing(tmp_path):
    run = Run(tiny.tokenizer(), epath.Path(tmp_path / "run"))
    nothing = jax.tree.map(lambda x: jax.device_put(np.full(x.shape, np.nan, x.dtype), x.sharding), run.state.params)
    run.state = run.state._replace(params=nothing)
    with pytest.raises(InputError, match=r"not finite at step 1;.*pictures \d+, \d+"):
        run.go()
    assert not [item for item in (tmp_path / "run" / "checkpoints").iterdir() if item.name.isdigit()]


def test_another_config_in_the_directory_is_refused(finished):
    before = sorted((finished / "tokenizer").rglob("*"))
    with pytest.raises(InputError, match=r"another config \(optimizer.clip: 10.0 -> 1.0; seed: 0 -> 3\)"):
        train(tiny.tokenizer(seed=3, optimizer={"clip": 1.0}), str(finished / "tokenizer"))
    with pytest.raises(InputError, match="stage"):
        train(tiny.transformer(finished / "tokenizer"), str(finished / "tokenizer"))
    assert sorted((finished / "tokenizer").rglob("*")) == before


def test_a_foreign_directory_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("do not touch")
    with pytest.raises(InputError, match="is not empty and holds no run"):
        train(tiny.tokenizer(), str(tmp_path))
    assert [item.name for item in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 6, "mesh": {"data": 4, "fsdp": 2}}, "batch size .* 6 does not divide over 8"),
        ({"accumulate": 3}, "does not divide by accumulate 3"),
        ({"dtype": "float16"}, "dtype is 'float16'"),
        ({"epochs": 2}, "set one of steps and epochs"),
        ({"mesh": {"data": 3}}, "mesh"),
        ({"sharding": (("codebook", ("fsdp", None, None)),)}, "rule has 3 axes"),
        ({"optimizer": {"schedule": "cosin"}}, "optimizer.schedule is 'cosin'"),
        ({"init_from": "no/such/model"}, "no/such/model: no such model directory"),
    ],
)
def test_impossible_configs_are_one_line_and_leave_no_run(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        train(tiny.tokenizer(**changes), str(tmp_path / "run"))
    assert not list(tmp_path.iterdir())


def test_fine_tuning_takes_what_fits(finished, tmp_path, capsys):
    continued = tiny.transformer(finished / "tokenizer", init_from=str(finished / "transformer"))
    run = Run(continued, epath.Path(tmp_path / "same"))
    run.close()
    given = read_any_model(finished / "transformer").transformer_params
    equal(jax.device_get(run.state.params), given)
    assert "freshly drawn: nothing" in capsys.readouterr().out
    wider = tiny.transformer(finished / "tokenizer", init_from=str(finished / "transformer"), model={"width": 32})
    with pytest.raises(InputError, match="arrays differ in shape"):
        Run(wider, epath.Path(tmp_path / "wider"))
    with pytest.raises(InputError, match="has a tokenizer only"):
        Run(
            tiny.transformer(finished / "tokenizer", init_from=str(finished / "tokenizer")),
            epath.Path(tmp_path / "none"),
        )
    assert [item.name for item in tmp_path.iterdir()] == ["same"]


def test_without_a_tokenizer_or_with_another_one(finished, tmp_path):
    with pytest.raises(InputError, match="tokenizer is not set"):
        train(tiny.transformer(""), str(tmp_path / "a"))
    with pytest.raises(InputError, match="no such model directory"):
        train(tiny.transformer(tmp_path / "nowhere"), str(tmp_path / "b"))
    assert not list(tmp_path.iterdir())
