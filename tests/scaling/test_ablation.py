"""An ablation from nothing to its table, at the smallest size, and what it finds done when it is started again."""

from __future__ import annotations

import functools
import json

import pytest
from PIL import Image

from tests.packaging.tree import ROOT
from tests.training.runs import on_one_device
from var_jax.cli.main import main
from var_jax.errors import InputError
from var_jax.evaluation.classifier import train_classifier
from var_jax.scaling import ablation
from var_jax.scaling.ablation import Row, ablate, markdown
from var_jax.training.config import config_module, load_config

ROWS = """
from tests.training import tiny

TOKENIZER = {file!r}
TOKENIZERS = {{"scales": {{}}, "one_scale": {{"model.pyramid": "4"}}}}


def get_config(argument=""):
    c = tiny.transformer("")
    c.unlock()
    c.sample_classes = 0
    return c


def get_rows(argument=""):
    plain = {{}} if argument else {{"model.adaln": False, "model.drop_path": 0.0}}
    raster = {{"model.inputs": "previous_token", "model.drop_path": 0.0}}
    rows = [
        {{"name": "raster", "tokenizer": "one_scale", "changes": raster, "sampling": {{}}}},
        {{"name": "scales", "tokenizer": "scales", "changes": plain, "sampling": {{}}}},
        {{"name": "+ guidance", "tokenizer": "scales", "changes": plain, "sampling": {{"guidance": 2.0, "top_k": 4}}}},
    ]
    return [row for row in rows if not argument or row["tokenizer"] == argument]
"""
TOKENIZER = """
from tests.training import tiny

def get_config(argument=""):
    return tiny.tokenizer()
"""


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """The file of an ablation that is judged by few pictures."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(ablation, "_REAL", 60)
    monkeypatch.setattr(ablation, "_HELD_OUT", 40)
    monkeypatch.setattr(ablation, "train_classifier", functools.partial(train_classifier, steps=30))
    first_stage, rows = tmp_path / "first.py", tmp_path / "rows.py"
    first_stage.write_text(TOKENIZER)
    rows.write_text(ROWS.format(file=str(first_stage)))
    return rows


@pytest.mark.campaign
def test_a_table_from_nothing_and_nothing_done_twice(rows, tmp_path):
    said: list[str] = []
    text = ablate(str(rows), tmp_path / "out", seeds=1, samples=100, say=said.append)
    assert sum("tokenizer" in line for line in said) == 2
    assert len(list((tmp_path / "out" / "models").iterdir())) == 2  # two rows are one model
    assert [line.split("|")[1].strip() for line in text.splitlines()[2:5]] == ["1 raster", "2 scales", "3 + guidance"]
    steps = [line.split("|")[3].strip() for line in text.splitlines()[2:5]]
    assert steps == ["16", "3", "3"]
    found = json.loads((tmp_path / "out" / "ablation.json").read_text())
    figures = [row["seeds"][0] for row in found]
    assert figures[2]["sample_flops"] == 2 * figures[1]["sample_flops"]
    assert figures[2]["loss"] == figures[1]["loss"]
    assert all(0 <= one["class_accuracy"] <= 1 and one["frechet"] > 0 for one in figures)
    with Image.open(tmp_path / "out" / "ablation.png") as picture:
        height, width = picture.height, picture.width
    side = (height - 2 * 2) // 3  # three rows with two white pixels in between
    assert height == 3 * side + 2 * 2
    assert width % side == 0
    said.clear()
    assert ablate(str(rows), tmp_path / "out", seeds=1, samples=100, say=said.append) == text
    assert said == []


@pytest.mark.campaign
def test_a_table_of_one_model_drawn_from_in_two_ways(rows, tmp_path, monkeypatch):
    """The trainings, which are processes of their own, run in this one."""
    monkeypatch.setattr(ablation, "trained", lambda words: main(list(words)))
    with on_one_device():
        text = ablate(f"{rows}:scales", tmp_path / "out", seeds=1, samples=100, say=lambda line: None)
    assert [line.split("|")[1].strip() for line in text.splitlines()[2:4]] == ["1 scales", "2 + guidance"]
    assert len(list((tmp_path / "out" / "models").iterdir())) == 1
    figures = [row["seeds"][0] for row in json.loads((tmp_path / "out" / "ablation.json").read_text())]
    assert figures[1]["sample_flops"] == 2 * figures[0]["sample_flops"]
    assert figures[1]["loss"] == figures[0]["loss"]
    assert all(0 <= one["class_accuracy"] <= 1 and one["frechet"] > 0 for one in figures)
    again: list[str] = []
    assert ablate(f"{rows}:scales", tmp_path / "out", seeds=1, samples=100, say=again.append) == text
    assert again == []


def test_rows_that_train_alike_share_a_model():
    row = lambda **changes: Row("a", "scales", changes.pop("changes", {"model.adaln": False}), changes)
    assert row(guidance=2.0).training(0) == row().training(0)
    assert row(guidance=2.0).figures(0) != row().figures(0)
    assert row().training(0) != row().training(1)
    assert row().training(0) != row(changes={}).training(0)


def test_the_rows_of_the_package_make_configs():
    module = config_module("ablation")
    rows = module.get_rows()
    assert len(rows) >= 7
    for row in rows:
        load_config("ablation", [f"{key}={value}" for key, value in row["changes"].items()])
        load_config(module.TOKENIZER, [f"{key}={value}" for key, value in module.TOKENIZERS[row["tokenizer"]].items()])


def test_the_table_shows_the_spread_and_what_can_be_compared():
    figures = {
        "parameters": 1000,
        "steps": 16,
        "sample_flops": 10,
        "seconds_a_picture": 0.5,
        "comparable": ["one_scale", True],
        "class_accuracy": 0.5,
        "classifier_accuracy": 0.99,
        "frechet": 100.0,
        "frechet_held_out": 10.0,
        "spread": 1.0,
    }
    other = {**figures, "comparable": ["scales", False], "sample_flops": 25, "seconds_a_picture": 0.05}
    each = lambda base: [{**base, "loss": 1.0}, {**base, "loss": 2.0}]
    lines = markdown([{"row": "a", "seeds": each(figures)}, {"row": "b", "seeds": each(other)}]).splitlines()
    assert "1.500 (1.000 to 2.000) " in lines[2]
    assert "1.500 (1.000 to 2.000)\\* " in lines[3]
    assert "| 2.50 | 0.100 |" in lines[3]
    assert "99.0%" in lines[-1]


def test_what_is_no_ablation():
    with pytest.raises(InputError, match="has no rows"):
        ablate("shapes_var", "nowhere")
    with pytest.raises(InputError, match="expected 1 or more"):
        ablate("ablation", "nowhere", seeds=0)
