"""Directories that an older version wrote: the model loads, both trainings are read, and the broken-off one goes on."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import jax
import ml_collections
import numpy as np
import pytest
from etils import epath

from configs import _common
from var_jax.bundle import load
from var_jax.model_directory import read_model, save_model
from var_jax.models.parameters import flatten
from var_jax.training.config import plain
from var_jax.training.loop import FINISHED, Run
from var_jax.training_directory import read_any_model

ARCHIVE = Path(__file__).parent / "fixtures" / "written_by_0_1.tar.xz"


@pytest.fixture(scope="module")
def older(tmp_path_factory):
    """`model` (a model directory), `tokenizer` (a finished training), `transformer` (one stopped at step 4 of 6)."""
    folder = tmp_path_factory.mktemp("older")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def expected(older):
    """Tokens, pictures and logits of the model, and parameters at step 6, as the older version computed them."""
    with np.load(older / "expected.npz") as file:
        return dict(file)


def test_the_model_directory(older, expected):
    """Its fingerprints hold, tokens are the same, and so are pictures and logits up to rounding."""
    model = read_model(older / "model")
    assert json.loads((older / "model" / "config.json").read_text())["fingerprints"] == model.fingerprints
    bundle = load(older / "model")
    np.testing.assert_array_equal(bundle.encode(bundle.decode(np.arange(42).reshape(2, 21) % 16)), expected["tokens"])
    images = bundle.generate([1, 4], jax.random.key(3), guidance=1.5, top_k=5, top_p=0.9)
    np.testing.assert_allclose(images, expected["images"], atol=1e-5)
    np.testing.assert_allclose(bundle.logits([1, 4], expected["tokens"]), expected["logits"], atol=1e-4)


def test_training_directories_are_read(older):
    tokenizer, model = read_any_model(older / "tokenizer"), read_any_model(older / "transformer")
    assert tokenizer.transformer_config is None
    assert model.fingerprints["tokenizer"] == tokenizer.fingerprints["tokenizer"]
    assert model.transformer_config.depth == 2
    assert len(model.class_names) == model.transformer_config.num_classes


def test_a_training_with_room_for_more_classes_than_have_names(older, tmp_path):
    """As a config of the user's own may have it; each class gets a name, so that it is exported whole."""
    shutil.copytree(older / "transformer", tmp_path / "run")
    run = json.loads((tmp_path / "run" / "training.json").read_text())
    more = run | {"class_names": run["class_names"][:2]}
    (tmp_path / "run" / "training.json").write_text(json.dumps(more))
    model = read_any_model(tmp_path / "run")
    assert model.class_names[:3] == (*run["class_names"][:2], "class 2")
    save_model(tmp_path / "model", model)
    assert read_model(tmp_path / "model").class_names == model.class_names


def test_a_training_goes_on_to_the_same_parameters(older, expected, monkeypatch):
    """With the config of its own description, as the same command would, and with nothing in it that is new."""
    monkeypatch.chdir(older)
    stored = json.loads((older / "transformer" / "training.json").read_text())["config"]
    assert set(stored) <= set(plain(_common.transformer("d2")))
    config = ml_collections.ConfigDict(stored).lock()
    run = Run(config, epath.Path(older / "transformer"), jax.devices()[:1])
    assert int(run.state.step) == 4
    assert run.go() == FINISHED
    for path, leaf in flatten(jax.device_get(run.state.params)).items():
        np.testing.assert_allclose(leaf, expected["/".join(("params", *path))], rtol=1e-3, atol=1e-5, err_msg=str(path))
