"""The example pictures: what is written, that no held-out pixel is trained on, and what is said without the library."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image

from var_jax.cli.main import main
from var_jax.data import examples
from var_jax.data.folder import Folder
from var_jax.errors import InputError

SIZES = [(512, 512), (451, 300), (300, 451), (1000, 872), (1411, 1411)]


@pytest.mark.parametrize("size", SIZES)
def test_training_windows_and_held_out_ones_share_no_pixel(size):
    side, seen = examples.window_side(size), {}
    for split, places in examples.window_places(size).items():
        seen[split] = np.zeros(size[::-1], bool)
        for left, top in places:
            assert 0 <= left <= size[0] - side
            assert 0 <= top <= size[1] - side
            seen[split][top : top + side, left : left + side] = True
    assert not (seen["train"] & seen["validation"]).any()
    assert 0.05 < seen["validation"].mean() < 0.2
    # Two margins narrower than a window, beside the blocks and at the far edges, are in nothing.
    assert seen["train"].mean() > 0.6


def test_digits_are_the_scans_enlarged():
    from sklearn.datasets import load_digits

    scans = load_digits()
    found = [next(iterator) for iterator in [examples.digits()] for _ in range(20)]
    assert [name for name, _ in found] == [str(label) for label in scans.target[:20]]
    for (_, picture), scan in zip(found, scans.images, strict=False):
        assert picture.shape == (examples.DIGIT_SIDE, examples.DIGIT_SIDE)
        assert picture.dtype == np.uint8
        again = np.asarray(Image.fromarray(picture[2:-2, 2:-2]).resize((8, 8), Image.Resampling.BOX))
        assert np.corrcoef(again.ravel(), scan.ravel())[0, 1] > 0.95
        assert again.max() > 180


def test_photographs_come_in_both_splits_of_every_class(monkeypatch):
    monkeypatch.setattr(examples, "PHOTOGRAPHS", ("chelsea", "brick"))
    found = {}
    for name, picture in examples.photographs():
        assert picture.shape == (examples.WINDOW_SIDE, examples.WINDOW_SIDE, 3)
        found.setdefault(name, []).append(picture)
    assert set(found) == {f"{split}/{name}" for split in ("train", "validation") for name in examples.PHOTOGRAPHS}
    assert all(len(pictures) >= 18 for pictures in found.values())
    grey = {name: np.ptp(np.stack(pictures), axis=-1).max() == 0 for name, pictures in found.items()}
    assert {name for name, is_grey in grey.items() if is_grey} == {"train/brick", "validation/brick"}


def test_written_folder_can_be_trained_on(monkeypatch, tmp_path, capsys):
    names = [f"{split}/{name}" for split in ("train", "val") for name in "ab"]
    few = [(name, np.full((8, 8), 9 * i, np.uint8)) for i, name in enumerate(names)]
    monkeypatch.setitem(examples.KINDS, "digits", lambda: iter(few + few))
    assert main(["data", "example", "--kind", "digits", "--out", str(tmp_path / "new")]) == 0
    assert "8 pictures" in capsys.readouterr().out
    source = Folder("validation", tmp_path / "new")
    assert (len(source), source.class_names) == (4, ("a", "b"))
    assert source[0][0].shape == (8, 8, 3)
    assert sorted(int(source[i][0].max()) for i in range(4)) == [18, 18, 27, 27]


def test_a_folder_that_holds_something_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    assert main(["data", "example", "--kind", "digits", "--out", str(tmp_path)]) == 2
    assert "not empty" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("kind", "module", "library"),
    [("digits", "sklearn.datasets", "scikit-learn"), ("photographs", "skimage", "scikit-image")],
)
def test_a_missing_library_is_named(monkeypatch, tmp_path, kind, module, library):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"{library}, .* is not installed; pip install 'var_jax\[examples\]'"):
        examples.write_examples(kind, tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_an_unknown_kind_is_named(tmp_path):
    with pytest.raises(InputError, match="'faces' .* expected digits or photographs"):
        examples.write_examples("faces", tmp_path / "new")
