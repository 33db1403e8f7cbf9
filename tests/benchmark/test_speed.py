"""`var-jax benchmark` on the smallest models: every figure is there, and nothing compiles twice."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.interop.checkpoints import drawn_model
from var_jax.benchmark import beside, compiling, loading, machine, speed
from var_jax.benchmark.models import directory, preset
from var_jax.benchmark.training_program import training_program
from var_jax.cli.main import main
from var_jax.errors import InputError
from var_jax.model_directory import save_model

SMALL = ["--preset", "d1", "--pyramid", "1,2", "--channels", "32"]


@pytest.fixture(autouse=True)
def quick_limits(monkeypatch):
    """Small arrays: how fast the machine is does not matter here."""
    monkeypatch.setattr(machine, "_SMALLEST_MATRIX", 64)
    monkeypatch.setattr(machine, "_SMALLEST_VECTOR", 2**16)
    monkeypatch.setattr(machine, "_LONG_ENOUGH", 0.0)


def told(tmp_path, *arguments) -> dict:
    assert main(["benchmark", *arguments, "--json", str(tmp_path / "told.json")]) == 0
    return json.loads((tmp_path / "told.json").read_text())


def assert_whole(found: dict, cases: int, repeats: int) -> None:
    assert len(found["cases"]) == cases
    for case in found["cases"]:
        ours = case["ours"]
        assert len(ours["seconds"]) == repeats and 0 < ours["low"] <= ours["median"] <= ours["high"]
        assert case["pictures_per_second"] == pytest.approx(case["pictures"] / ours["median"])
        assert case["compiled_after_first_call"] == 0
        assert case["flops"] == sum(phase["flops"] for phase in case["phases"]) > 0
        assert case["share_of_limit"] >= case["share_of_matrix_peak"] > 0
        assert case["peak_bytes"] > 2**20
    assert {"device", "platform", "cores"} <= found["machine"].keys()
    assert {"var_jax", "jax", "jaxlib", "python"} <= found["versions"].keys()


def test_sample(tmp_path, capsys):
    found = told(tmp_path, "sample", *SMALL, "--batch", "2", "--repeats", "2")
    assert_whole(found, cases=1, repeats=2)
    assert found["settings"]["guidance"] == 1.5
    assert set(found["limits"]["matrix_flops"]) == {"float32"}
    printed = capsys.readouterr().out
    assert "batch 2" in printed and "of the limit" in printed and "reference" not in printed


def test_train_from_stored_tokens(tmp_path):
    arguments = [*SMALL, "--batch", "2", "--repeats", "2", "--from", "tokens", "--config.remat=nothing_saveable"]
    found = told(tmp_path, "train", *arguments)
    assert_whole(found, cases=1, repeats=2)
    assert found["settings"]["remat"] == "nothing_saveable" and found["settings"]["from"] == "tokens"
    assert [phase["name"] for phase in found["cases"][0]["phases"]] == ["inputs", "transformer"]


def test_tokenize_a_model_directory(tmp_path):
    save_model(tmp_path / "model", drawn_model())
    found = told(tmp_path, "tokenize", "--model", str(tmp_path / "model"), "--batch", "1,2", "--repeats", "2")
    assert_whole(found, cases=2, repeats=2)
    assert found["cases"][1]["flops"] == 2 * found["cases"][0]["flops"]
    chosen = directory(str(tmp_path / "model"))
    np.testing.assert_array_equal(
        chosen.tokenizer_on_device()["quantizer"]["codebook"], chosen.tokenizer_params["quantizer"]["codebook"]
    )


def test_data_of_pictures_that_it_makes(tmp_path):
    arguments = ["--pictures", "6", "--batch", "2", "--batches", "2", "--size", "32", "--workers", "0"]
    found = told(tmp_path, "data", *arguments, "--repeats", "2")
    case = found["cases"][0]
    assert case["pictures"] == 4 and len(case["ours"]["seconds"]) == 2
    assert case["pictures_per_second_per_core"] == case["pictures_per_second"]


def test_made_pictures_are_jpeg_files_of_500_pixels(tmp_path):
    loading.make_folder(tmp_path, 4)
    files = sorted(tmp_path.rglob("*.jpg"))
    assert len(files) == 4
    for file in files:
        with Image.open(file) as picture:
            assert picture.format == "JPEG" and sorted(picture.size) == [375, 500]
        assert 40_000 < file.stat().st_size < 200_000  # as photographs of that size have
    with pytest.raises(InputError, match="--pictures 3: expected 4 or more"):
        loading.make_folder(tmp_path, 3)


@pytest.mark.campaign
def test_a_second_start_finds_what_the_first_compiled(tmp_path):
    task = {"program": "train", "preset": "d1", "pyramid": "1,2", "channels": 32, "batch": 2, "dtype": None}
    task |= {"attention": "xla", "source": "tokens", "overrides": []}
    found, described = compiling.compile_times(task, 1, say=lambda text: None)
    assert list(found) == ["first start", "second start"]
    assert all(start.keys() == set(compiling.PHASES) for starts in found.values() for start in starts)
    assert described["cache_bytes"] > 1000 and described["dtype"] == "float32"
    assert "in all, s" in compiling.text_of(found)[1]


def test_what_cannot_be_compiled_is_said():
    task = {"program": "sample", "preset": "d0", "pyramid": None, "channels": 160, "batch": 1, "dtype": "float32"}
    with pytest.raises(InputError, match="transformer preset 'd0': expected d and a depth"):
        compiling.compile_times(task | {"guidance": 1.5}, 1, say=lambda text: None)


def test_the_reference_is_told_of_no_model_that_it_cannot_be(tmp_path):
    with pytest.raises(InputError, match="pyramid 2: the reference needs at least two scales"):
        beside.shape(preset("d1", "2", 32).tokenizer)
    small = drawn_model()
    with pytest.raises(InputError, match="tokenizer channel_multipliers is .* leave out --against"):
        beside.shape(small.tokenizer_config)


def test_no_checkout_is_said_in_one_sentence(tmp_path):
    task = beside.shape(preset("d1", "1,2", 32).tokenizer) | {"what": "tokenize", "batch": 1}
    with pytest.raises(InputError, match="not a checkout of FoundationVision/VAR"), beside.Reference(tmp_path, task):
        pass


def test_a_dead_worker_is_said(tmp_path, monkeypatch):
    popen = subprocess.Popen
    dies = [sys.executable, "-c", "import sys; sys.exit('out of memory')"]
    monkeypatch.setattr(beside.subprocess, "Popen", lambda _, **given: popen(dies, **given))
    with pytest.raises(InputError, match="process ended at 'prepare' \\(out of memory\\)"):
        beside.Reference(tmp_path, {"device": "cpu"}).__enter__()


def test_options_of_the_command_are_not_overridden():
    with pytest.raises(InputError, match="--config.batch_size: take the command's own options"):
        training_program(preset("d1", "1,2", 32), 2, "float32", "xla", ["--config.batch_size=3"])
    with pytest.raises(InputError, match="accumulate 3"):
        training_program(preset("d1", "1,2", 32), 2, "float32", "xla", ["--config.accumulate=3"])
    with pytest.raises(InputError, match="--batch 0: expected numbers from 1 up"):
        speed.tokenize(preset("d1", "1,2", 32), [0], 1)
