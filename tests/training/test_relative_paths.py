"""A run's directory given as people give it: relative to where they are."""

from __future__ import annotations

import pytest

from tests.training import tiny
from var_jax.training.loop import FINISHED, train
from var_jax.training_directory import read_any_model

pytestmark = pytest.mark.usefixtures("one_device")


def test_a_relative_workdir_trains_resumes_and_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert train(tiny.tokenizer(), "runs/first") == FINISHED
    assert train(tiny.tokenizer(), "runs/first") == FINISHED
    assert (tmp_path / "runs" / "first" / "checkpoints" / "6").is_dir()
    assert read_any_model("runs/first").tokenizer_config.codebook_size == 16
