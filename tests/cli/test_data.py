"""`var-jax data`: what a data set holds, what it lacks, and exit code 2 with one line when it cannot be used."""

from __future__ import annotations

import pytest
from PIL import Image

from tests.data import tiny_tfds
from var_jax.cli.main import main


@pytest.fixture
def folder(tmp_path):
    for label, count in {"left": 12, "right": 4}.items():
        (tmp_path / label).mkdir()
        for i in range(count):
            Image.new("RGB", (4, 4)).save(tmp_path / label / f"{i}.png")
    return tmp_path


def refused(arguments, capsys):
    assert main(["data", *map(str, arguments)]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("var-jax data: ")
    assert printed.err.count("\n") == 1
    return printed.err


def test_check_counts_the_pictures_of_a_folder(folder, capsys):
    assert (
        main(["data", "check", "--kind", "folder", "--path", str(folder), "--validation-share", "0.5", "--read"]) == 0
    )
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    counts = {name: [int(words[1]) for words in lines if words[0] == name] for name in ("left", "right")}
    assert [sum(per_split) for per_split in counts.values()] == [12, 4]
    assert lines[-1] == ["validation:", "every", "picture", "can", "be", "read"]


def test_check_finds_damage_only_by_reading(folder, capsys):
    for name in ("3.png", "1.png"):
        (folder / "right" / name).write_bytes(b"rubbish")
    check = ["check", "--kind", "folder", "--path", folder, "--validation-share", "0.01"]
    assert main(["data", *map(str, check)]) == 0
    capsys.readouterr()
    error = refused([*check, "--read"], capsys)
    assert "right/1.png" in error or "right/3.png" in error
    assert "repair or remove" in error


def test_check_refuses_what_cannot_be_trained_on(folder, tmp_path, capsys):
    (folder / "middle").mkdir()
    assert "class 'middle' holds no picture" in refused(["check", "--kind", "folder", "--path", folder], capsys)
    assert "no such folder" in refused(["check", "--kind", "folder", "--path", tmp_path / "nowhere"], capsys)
    assert "no option path" in refused(["check", "--kind", "shapes", "--path", folder], capsys)
    assert "needs the option name" in refused(["check", "--kind", "tfds"], capsys)


def test_check_shapes(capsys):
    assert main(["data", "check", "--kind", "shapes", "--count", "40", "--size", "16"]) == 0
    printed = capsys.readouterr().out
    assert "train: 40 pictures in 10 classes" in printed
    assert printed.count("stripes") == 2


def test_many_classes_are_summed_up(tmp_path, capsys):
    for k in range(60):
        (tmp_path / f"class{k:02}").mkdir()
        for i in range(3 if k else 5):
            Image.new("RGB", (4, 4)).save(tmp_path / f"class{k:02}" / f"{i}.png")
    assert main(["data", "check", "--kind", "folder", "--path", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == 4
    assert "2 pictures per class in the median" in printed
    assert "most: class00 has 4" in printed


def test_prepare_then_check(tmp_path, capsys):
    data = ["--name", "tiny_trees", "--data-dir", str(tmp_path)]
    assert "is not prepared in" in refused(["check", "--kind", "tfds", *data], capsys)
    assert main(["data", "prepare", *data]) == 0
    assert "is ready in" in capsys.readouterr().out
    assert main(["data", "check", "--kind", "tfds", *data, "--read"]) == 0
    printed = capsys.readouterr().out
    assert f"train: {tiny_tfds.TinyTrees.SPLITS['train']} pictures in 3 classes" in printed
    assert [line.split() for line in printed.splitlines()][1] == ["ash", "8"]
    assert "validation: every picture can be read" in printed


def test_prepare_says_what_has_to_be_fetched_by_hand(tmp_path, capsys):
    error = refused(["prepare", "--name", "imagenet2012", "--data-dir", tmp_path], capsys)
    assert (
        "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from https://image-net.org/download-images into " in error
    )
    assert str(tmp_path / "downloads" / "manual") in error
