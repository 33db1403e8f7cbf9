"""A work directory in a bucket: trained, stopped, resumed and drawn from, with nothing left on the local disk."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from etils import epath
from PIL import Image

from tests.fake_gcs import FakeGcs
from tests.training import tiny
from tests.training.runs import StopAt, equal, last_state, on_one_device
from var_jax.cli.main import main
from var_jax.errors import InputError
from var_jax.model_directory import read_model, save_model
from var_jax.training.loop import FINISHED, PREEMPTED, train
from var_jax.training_directory import read_any_model

pytestmark = pytest.mark.usefixtures("one_device")

RUNS = "gs://bucket/runs"
VAR = f"{RUNS}/var"


@pytest.fixture(scope="module")
def bucket():
    """What the fake storage holds; gcsfs and TensorStore are led to it and ask nobody for credentials."""
    gcs = FakeGcs()
    with gcs as url, pytest.MonkeyPatch.context() as patch:
        for name in ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL"):
            patch.setenv(name, url)
        patch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "none")
        pytest.importorskip("gcsfs")
        import fsspec

        patch.setitem(fsspec.config.conf, "gcs", {"token": "anon"})
        yield gcs.objects


@pytest.fixture(scope="module")
def runs(bucket, tmp_path_factory):
    """A tokenizer's run that was stopped and resumed, and a transformer's run on it."""
    with pytest.MonkeyPatch.context() as patch, on_one_device():
        patch.chdir(tmp_path_factory.mktemp("here"))
        with pytest.MonkeyPatch.context() as stopping:
            StopAt(stopping, 4)
            assert train(tiny.tokenizer(), f"{RUNS}/tokenizer") == PREEMPTED
        assert train(tiny.tokenizer(), f"{RUNS}/tokenizer") == FINISHED
        assert train(tiny.transformer(f"{RUNS}/tokenizer"), VAR) == FINISHED
        assert not list(epath.Path(".").iterdir())
    return bucket


@pytest.mark.campaign
def test_stopped_and_resumed_is_the_unbroken_run(runs, tiny_run):
    equal(last_state(f"{RUNS}/tokenizer"), last_state(tiny_run / "tokenizer"))
    log = runs["bucket", "runs/tokenizer/log.txt"].content.decode()
    assert "stopped at step 4 of 6" in log
    assert "resumed at step 4 of 6" in log


def test_everything_is_in_the_bucket(runs):
    names = {name.removeprefix("runs/var/") for _, name in runs if name.startswith("runs/var/")}
    written = {"training.json", "log.txt", "metrics.jsonl", "sharding.txt", "pictures/samples_0000006.png"}
    assert names >= written | {"tokenizer/config.json", "tokenizer/model.safetensors"}
    assert {name.split("/")[1] for name in names if name.startswith("checkpoints/")} == {"3", "6"}
    assert not [name for name in names if "tmp" in name]


def test_curves_are_in_the_bucket(runs):
    pytest.importorskip("tensorboardX")
    prefix = "runs/var/tensorboard/events."
    assert [len(stored.content) > 500 for (_, name), stored in runs.items() if name.startswith(prefix)] == [True]


def test_commands_read_a_bucket(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["--classes=0,1", "--per-class=1", "--batch=2"]
    assert main(["sample", "--model", VAR, "--out", "grid.png", *options]) == 0
    assert main(["reconstruct", "grid.png", "--model", f"{RUNS}/tokenizer", "--out", "strip.png"]) == 0
    assert Image.open("strip.png").width > Image.open("grid.png").width
    assert main(["sample", "--model", VAR, "--out", "gs://bucket/grid.png", *options]) == 2
    assert "gs://bucket/grid.png: this is written to local paths only" in capsys.readouterr().err
    assert sorted(item.name for item in tmp_path.iterdir()) == ["grid.png", "strip.png"]


def test_a_model_directory_is_whole_once_its_config_is_there(runs):
    model = read_any_model(VAR)
    (epath.Path(RUNS) / "copy" / "model.safetensors").write_text("of an upload that broke off")
    with pytest.raises(InputError, match=f"{RUNS}/copy: not a model directory, it has no config.json"):
        read_model(f"{RUNS}/copy")
    save_model(f"{RUNS}/copy", model)
    again = read_model(f"{RUNS}/copy")
    jax.tree.map(np.testing.assert_array_equal, dataclasses.asdict(again), dataclasses.asdict(model))
    with pytest.raises(InputError, match="exists and is not empty"):
        save_model(f"{RUNS}/copy", model)
    epath.Path(f"{RUNS}/copy/model.safetensors").write_text("damaged")
    with pytest.raises(InputError, match=f"{RUNS}/copy/model.safetensors: not a whole safetensors file"):
        read_model(f"{RUNS}/copy")


def test_another_config_in_the_bucket_is_refused(runs):
    before = dict(runs)
    with pytest.raises(InputError, match=r"another config \(seed: 0 -> 3\)"):
        train(tiny.tokenizer(seed=3), f"{RUNS}/tokenizer")
    assert runs == before
