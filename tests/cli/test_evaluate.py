"""`var-jax evaluate`: figures printed and written, a model sampled on the way, and one line for what cannot be."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import run
from tests.evaluation.small_judge import TOKENIZER, pictures, small_judge, small_model
from tests.interop.checkpoints import drawn_model
from var_jax.cli import evaluate as command
from var_jax.model_directory import save_model


@pytest.fixture
def small(monkeypatch):
    """The command with a small network in Inception's place."""
    monkeypatch.setattr(command, "inception_judge", lambda path, batch: small_judge(1, batch))


@pytest.fixture
def files(tmp_path):
    (tmp_path / "samples").mkdir()
    for number, image in enumerate(pictures(12)):
        Image.fromarray(image).save(tmp_path / "samples" / f"{number:02}.png")
    np.savez(tmp_path / "reference.npz", arr_0=pictures(10, seed=1))
    return tmp_path


def test_figures_are_printed_and_written(files, small, capsys):
    arguments = ["evaluate", "--samples", files / "samples", "--reference", files / "reference.npz", "--batch", "8"]
    arguments += ["--json", files / "report.json", "--statistics", files / "own.npz", "--work", files / "work"]
    assert run(*arguments, "--count", 12, "--expect", "d16") == 0
    printed = capsys.readouterr().out
    report = json.loads((files / "report.json").read_text())
    for name in ("fid", "sfid", "inception_score", "inception_score_shuffled", "precision", "recall"):
        assert f"{name:30} {report[name]:.4f}" in printed
    assert report["samples"] == 12
    assert "note: 12 samples, published figures use 50000" in printed
    assert "Published figures of VAR-d16" in printed
    # Once more from the features that were kept, against the samples' own statistics.
    assert run(*arguments[:4], files / "own.npz", *arguments[5:]) == 0
    assert json.loads((files / "report.json").read_text())["fid"] < 1e-6


def test_a_model_is_sampled_on_the_way(files, small):
    save_model(files / "model", small_model())
    arguments = ["evaluate", "--samples", files / "model", "--per-class", "2", "--draw-batch", "8", "--batch", "8"]
    assert run(*arguments, "--json", files / "report.json") == 0
    report = json.loads((files / "report.json").read_text())
    assert report["samples"] == 10
    assert report["fid"] is None
    assert "drawn here: 2 pictures of each of 5 classes, guidance 1.5" in report["notes"][0]


def test_missing_weights_are_one_sentence(files, refused, monkeypatch, tmp_path):
    monkeypatch.setenv("VAR_JAX_CACHE", str(tmp_path))
    message = refused("evaluate", "--samples", files / "samples")
    assert "get pt_inception-2015-12-05-6726825d.pth" in message
    assert f"weights of Inception: none in {tmp_path}" in message
    message = refused("evaluate", "--samples", files / "samples", "--inception", files / "reference.npz")
    assert "reference.npz: " in message


def test_what_cannot_be_is_refused(files, small, refused):
    save_model(files / "model", drawn_model(TOKENIZER, None))
    samples = ["evaluate", "--samples", files / "samples"]
    assert "12 pictures, --count says 13; find the missing ones" in refused(*samples, "--count", "13")
    assert "no published figures of 'd17'" in refused(*samples, "--expect", "d17")
    assert "is a model directory, expected pictures" in refused(*samples, "--reference", files / "model")
    assert "no such file" in refused(*samples, "--reference", files / "nowhere")
    assert "has a tokenizer only" in refused("evaluate", "--samples", files / "model")
    assert "top_p 2.0: expected 0 to 1" in refused(*samples, "--top-p", "2")
