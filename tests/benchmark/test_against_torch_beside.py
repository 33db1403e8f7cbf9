"""The reference's worker on a stand-in of the reference: each kind of call, and the whole command in turn with it."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from PIL import Image

from tests.benchmark.checkout import write_checkout
from var_jax.benchmark import beside, machine
from var_jax.benchmark.models import preset
from var_jax.benchmark.reference_worker import EndlessOrder, PictureFiles, Worker
from var_jax.cli.main import main

torch = pytest.importorskip("torch")
MODEL = preset("d1", "1,2", 32)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    return write_checkout(tmp_path_factory.mktemp("reference"))


@pytest.fixture
def worker(checkout):
    threads = torch.get_num_threads()
    yield Worker(str(checkout))
    torch.set_num_threads(threads)
    for name in [name for name in sys.modules if name.split(".")[0] in ("models", "huggingface_hub")]:
        del sys.modules[name]


@pytest.mark.parametrize("what", ["sample", "tokenize", "train"])
def test_a_call_is_run_as_often_as_asked(worker, what):
    task = beside.shape(MODEL.tokenizer, MODEL.transformer) | {"what": what, "threads": 1, "batch": 2}
    task |= {"dtype": "bfloat16", "guidance": 1.5, "top_k": 900, "top_p": 0.96}
    assert worker.prepare(json.loads(json.dumps(task))) == {"torch": torch.__version__}
    assert worker.run(None) > 0 and worker.run(None) > 0
    assert worker.peak(None) > 2**20


def test_weight_decay_spares_vectors(worker, monkeypatch):
    stepped = []
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: stepped.append(self.param_groups))
    task = beside.shape(MODEL.tokenizer, MODEL.transformer) | {"what": "train", "threads": 1, "batch": 2}
    worker.prepare(task | {"dtype": "float32"})
    worker.run(None)
    matrices, vectors = stepped[0]
    assert matrices["weight_decay"] > vectors["weight_decay"] == 0
    assert {p.ndim for p in matrices["params"]} == {2} and {p.ndim for p in vectors["params"]} == {1}


def test_pictures_are_cut_by_the_reference_as_by_us(tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (60, 40, 3), np.uint8)).save(tmp_path / "a.png")
    square = PictureFiles([str(tmp_path / "a.png")], 16, 18)[0]
    assert square.shape == (16, 16, 3) and square.dtype == torch.uint8
    order = iter(EndlessOrder(5))
    first, second = ([next(order) for _ in range(5)] for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(5)) and first != second


def test_the_command_prints_the_ratio_pair_by_pair(checkout, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(machine, "_SMALLEST_VECTOR", 2**16)
    monkeypatch.setattr(machine, "_LONG_ENOUGH", 0.0)
    arguments = ["--preset", "d1", "--pyramid", "1,2", "--channels", "32", "--batch", "2", "--repeats", "3"]
    out = tmp_path / "sample.json"
    assert main(["benchmark", "sample", *arguments, "--against", str(checkout), "--json", str(out)]) == 0
    printed, told = capsys.readouterr().out, json.loads(out.read_text())
    case = told["cases"][0]
    pairs = zip(case["ours"]["seconds"], case["reference"]["seconds"], strict=True)
    assert case["ratios"] == [theirs / ours for ours, theirs in pairs] and len(case["ratios"]) == 3
    assert told["reference"] == {"torch": torch.__version__}
    assert "pair by pair  " in printed and f"reference on torch {torch.__version__}" in printed
    assert case["compiled_after_first_call"] == 0
