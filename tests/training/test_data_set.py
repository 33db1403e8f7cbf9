"""The data set belongs to the run: another one is refused, and other pictures need a word."""

from __future__ import annotations

import json
import os
import shutil

import pytest
from etils import epath

from tests.data.tiny_tfds import TinyTrees
from tests.training import tiny
from tests.training.test_checkpoints import flip, largest
from tests.training.test_damage import picture
from var_jax.data.sources import SPLITS, make_source
from var_jax.data.tfds import prepare
from var_jax.errors import InputError
from var_jax.training.config import claim_directory
from var_jax.training.data_set import keep_data_set
from var_jax.training.loop import train


@pytest.fixture
def run(tmp_path):
    """`start(changed)`: as a run on the folder `ds`, of classes a and b, begins; the lines that it says."""
    for name in "ab":
        for number in range(6):
            picture(tmp_path / "ds" / name / f"{number}.png", number)
    workdir = epath.Path(tmp_path / "run")

    def start(changed="refuse", about=None):
        config, lines = tiny.tokenizer(), []
        with config.unlocked():
            config.data.changed = changed
        claim_directory(workdir, config, about or {"stage": "tokenizer", "tokenizer": {}})
        sources = [make_source("folder", split, path=tmp_path / "ds", validation_share=0.3) for split in SPLITS]
        keep_data_set(workdir, config, sources, lines.append)
        return lines

    assert start() == []
    return start


CLASSES = {
    "renamed": (lambda ds: (ds / "a").rename(ds / "z"), r"2 classes, .* with 2 \(new: z; gone: a\)"),
    "added": (lambda ds: shutil.copytree(ds / "a", ds / "c"), r"3 classes, .* with 2 \(new: c\)"),
    "removed": (lambda ds: shutil.rmtree(ds / "b"), r"1 classes, .* with 2 \(gone: b\)"),
}


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("changed", ["refuse", "allow"])
def test_other_classes_are_refused(run, tmp_path, kind, changed):
    change, said = CLASSES[kind]
    before = (tmp_path / "run" / "data_set.json").read_bytes()
    change(tmp_path / "ds")
    with pytest.raises(InputError, match=f"the data set has {said}: give the data set that it was begun with"):
        run(changed)
    assert (tmp_path / "run" / "data_set.json").read_bytes() == before


PICTURES = {
    "more": (lambda ds: picture(ds / "a" / "new.png"), "pictures of class 'a', before"),
    "fewer": (lambda ds: (ds / "b" / "0.png").unlink(), "pictures of class 'b', before"),
    "another name": (lambda ds: (ds / "a" / "1.png").rename(ds / "a" / "1x.png"), "pictures of class 'a'"),
    "another size": (lambda ds: os.truncate(ds / "a" / "1.png", 20), "class 'a' have other names or sizes"),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_other_pictures_need_a_word_and_are_noted(run, tmp_path, kind):
    change, said = PICTURES[kind]
    change(tmp_path / "ds")
    with pytest.raises(InputError, match=f"{said}.*--config.data.changed=allow"):
        run()
    (line,) = run("allow")
    assert "the data set has changed, which --config.data.changed=allow allows: " in line
    assert said in line
    assert run() == []


def test_an_older_run_goes_on_and_knows_its_classes(run, tmp_path):
    file = tmp_path / "run" / "data_set.json"
    known = file.read_bytes()
    file.unlink()
    assert run() == []
    assert file.read_bytes() == known
    file.unlink()
    description = tmp_path / "run" / "training.json"
    about = {"stage": "transformer", "transformer": {}, "class_names": ["a", "z"]}
    description.write_text(json.dumps(json.loads(description.read_text()) | about))
    with pytest.raises(InputError, match=r"\(new: b; gone: z\)"):
        run()


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"class_names": ["a", "b"], "pictures": {"train": {"a": 3}, "validation": {}}}', "\udcff"],
)
def test_a_damaged_file_is_one_line(run, tmp_path, content):
    (tmp_path / "run" / "data_set.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match="data_set.json: .*(bring it back from a copy|check the path)"):
        run()


def test_refused_before_checkpoints_are_opened(tiny_run, tmp_path):
    shutil.copytree(tiny_run / "tokenizer", tmp_path / "run")
    file = tmp_path / "run" / "data_set.json"
    content = json.loads(file.read_text())
    content["class_names"][0] = "blob"
    file.write_text(json.dumps(content))
    flip(largest(tmp_path / "run" / "checkpoints" / "6"))
    with pytest.raises(InputError, match=r"\(new: disc; gone: blob\)"):
        train(tiny.tokenizer(), str(tmp_path / "run"))
    assert not (tmp_path / "run" / "damaged_checkpoints").exists()


def test_tfds_and_stores_know_their_numbers(tmp_path):
    prepare(TinyTrees.name, tmp_path)
    ((count, fingerprint),) = make_source("tfds", "train", name=TinyTrees.name, data_dir=tmp_path).identity().values()
    assert (count, len(fingerprint)) == (24, 16)
    assert make_source("shapes", "train", size=8, count=30).identity() == {"": (30, "")}
