"""The model that comes with the package: small, described, drawn with where no other is named, and by whom."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import var_jax
from tests.cli.conftest import refused, run
from var_jax.cli.main import COMMANDS
from var_jax.data.shapes import CLASS_NAMES

__all__ = ["refused"]  # the fixture

MOST_BYTES = 10_000_000
LEAST_SIDE = 64


@pytest.fixture(scope="module")
def bundle():
    return var_jax.load()


def test_it_is_small_and_whole(bundle):
    files = {file.name: file.stat().st_size for file in var_jax.bundled_model().iterdir()}
    assert sorted(files) == ["README.md", "config.json", "model.safetensors"]
    assert sum(files.values()) < MOST_BYTES
    assert bundle.tokenizer.config.image_size >= LEAST_SIDE
    assert bundle.class_names == CLASS_NAMES


def test_its_readme_says_where_it_comes_from():
    text = (var_jax.bundled_model() / "README.md").read_text(encoding="utf-8")
    for needed in ("shapes_tokenizer:64", "shapes_var:64", "var-jax train", "--half", "seed", "Apache-2.0"):
        assert needed in text, needed
    source = json.loads((var_jax.bundled_model() / "config.json").read_text())["source"]
    for part in source.values():
        assert f"{part.split()[-2]} steps" in text


def test_sample_takes_it_and_says_so(tmp_path, capsys):
    arguments = ["--classes", "star", "--per-class", 1, "--batch", 1, "--out", tmp_path / "star.png"]
    assert run("sample", *arguments) == 0
    said, *_, wrote = capsys.readouterr().out.splitlines()
    assert said == f"no --model given: the small one that comes with the package is used, {var_jax.bundled_model()}"
    assert wrote == f"wrote {tmp_path / 'star.png'}: a row each for classes star"
    named = ["--model", var_jax.bundled_model(), *arguments[:-1], tmp_path / "named.png"]
    assert run("sample", *named) == 0
    assert "no --model given" not in capsys.readouterr().out
    assert (tmp_path / "named.png").read_bytes() == (tmp_path / "star.png").read_bytes()


def test_edit_takes_it_and_says_so(tmp_path, capsys, bundle):
    size = bundle.tokenizer.config.image_size
    Image.new("RGB", (size, size), (90, 140, 60)).save(tmp_path / "in.png")
    arguments = ["--image", tmp_path / "in.png", "--box", "8,8,40,40", "--task", "class", "--class", "disc"]
    assert run("edit", *arguments, "--out", tmp_path / "out.png") == 0
    assert capsys.readouterr().out.startswith("no --model given: the small one that comes with the package is used, ")
    with Image.open(tmp_path / "out.png") as image:
        edited = np.asarray(image)
    assert np.all(edited[48:] == (90, 140, 60))
    assert edited[8:40, 8:40].std() > 5


def test_a_class_it_does_not_have(refused, tmp_path):
    line = refused("sample", "--classes", "cat", "--out", tmp_path / "cat.png")
    assert "class 'cat'" in line
    assert "crescent" in line


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - {"sample", "edit", "app"}))
def test_no_other_command_takes_it(command, refused):
    line = refused(command)
    assert "required" in line or "nothing" in line or "give" in line, line
