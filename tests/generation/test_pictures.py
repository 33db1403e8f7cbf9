"""Pictures for people: bytes, grids, captions, files."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.formats.samples import only_files_in
from var_jax.errors import InputError
from var_jax.generation.pictures import check_picture_path, grid, save_animation, save_picture, strips, to_uint8

PICTURE = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)


def test_bytes_are_truncated_and_not_rounded():
    values = np.array([0.0, 0.9 / 255, 1.0 / 255, 254.9 / 255, 1.0, -3.0, 7.0], np.float32)
    np.testing.assert_array_equal(to_uint8(values), [0, 0, 1, 254, 255, 0, 255])
    assert to_uint8(values).dtype == np.uint8


def test_bytes_survive_the_way_to_floats_and_back():
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_uint8(every / np.float32(255)), every)


def test_a_grid_goes_row_by_row_on_white():
    pictures = np.stack([np.full((4, 6, 3), 10 * number, np.uint8) for number in range(5)])
    drawn = grid(pictures, 3)
    assert drawn.shape == (4 + 2 + 4, 6 + 2 + 6 + 2 + 6, 3)
    for number, picture in enumerate(pictures):
        y, x = 6 * (number // 3), 8 * (number % 3)
        np.testing.assert_array_equal(drawn[y : y + 4, x : x + 6], picture)
        drawn[y : y + 4, x : x + 6] = 255
    assert np.all(drawn == 255)  # gaps, and the place of the missing sixth


def test_floats_are_drawn_as_their_bytes():
    floats = np.random.default_rng(0).random((2, 3, 3, 3), np.float32)
    np.testing.assert_array_equal(grid(floats, 2), grid(to_uint8(floats), 2))


def test_captions_stand_above_their_columns():
    pictures = np.zeros((2, 20, 60, 3), np.uint8)
    drawn = grid(pictures, 2, ["one", "three"])
    plain = grid(pictures, 2)
    np.testing.assert_array_equal(drawn[-plain.shape[0] :], plain)
    band = drawn[: -plain.shape[0]].min(axis=2)
    assert band.shape[0] > 10
    inked = np.flatnonzero(band.min(axis=0) < 128)
    first, second = inked[inked < 60], inked[inked >= 62]
    assert len(first) + len(second) == len(inked)
    for ink, centre in ((first, 30), (second, 92)):
        assert abs((ink.min() + ink.max()) / 2 - centre) <= 2
    assert len(second) > len(first)


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".bmp", ".tiff"])
def test_saved_pictures_are_read_back(tmp_path, suffix):
    path = tmp_path / "new" / f"a{suffix}"
    save_picture(path, PICTURE)
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image), PICTURE)
    assert only_files_in(tmp_path) == ["new", f"new/a{suffix}"]


def test_an_old_picture_is_replaced(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_text("old")
    check_picture_path(path)
    save_picture(path, PICTURE)
    with Image.open(path) as image:
        assert (image.format, image.size) == ("JPEG", (5, 4))


@pytest.mark.parametrize(
    ("name", "needle"),
    [
        ("a", "'' is not a picture format that can be written; use .png"),
        ("a.txt", "'.txt' is not a picture format"),
        ("a.psd", "'.psd' is not a picture format"),  # is read, but not written
        ("a.xbm", "cannot be written as XBM"),  # knows no colours
        ("a.h5", "cannot be written as HDF5"),
        ("folder.png", "a folder or a device stands there"),
        ("file/a.png", "is no folder you may write to"),
        ("file/new/a.png", "is no folder you may write to"),
    ],
)
def test_where_no_picture_can_be_written(tmp_path, name, needle):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("old")
    for write in (check_picture_path, lambda path: save_picture(path, PICTURE)):
        with pytest.raises(InputError) as raised:
            write(tmp_path / name)
        assert str(raised.value).startswith(f"{tmp_path / name}: ")
        assert "\n" not in str(raised.value)
        if write is check_picture_path:
            assert needle in str(raised.value)
    assert only_files_in(tmp_path) == ["file", "folder.png"]


def test_too_large_for_its_format(tmp_path):
    with pytest.raises(InputError, match=r"wide.jpg: cannot be written as JPEG .*; use .png"):
        save_picture(tmp_path / "wide.jpg", np.zeros((1, 70_000, 3), np.uint8))
    assert only_files_in(tmp_path) == []
    save_picture(tmp_path / "wide.png", np.zeros((1, 70_000, 3), np.uint8))


def test_a_check_writes_nothing(tmp_path):
    check_picture_path(tmp_path / "new" / "a.png")
    assert only_files_in(tmp_path) == []
    (tmp_path / "a.png").write_bytes(b"old")
    check_picture_path(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == b"old"


def test_strips_have_a_row_a_picture():
    growth = np.arange(3 * 2, dtype=np.uint8).reshape(3, 2, 1, 1, 1) * np.ones((1, 1, 4, 4, 3), np.uint8)
    drawn = strips(growth)
    assert drawn[::6, ::6, 0].tolist() == [[0, 2, 4], [1, 3, 5]]


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".apng"])
def test_an_animation_stands_longest_at_its_end(tmp_path, suffix):
    frames = [np.full((6, 8, 3), value, np.uint8) for value in (0, 120, 255)]
    save_animation(tmp_path / f"a{suffix}", frames, 100)
    with Image.open(tmp_path / f"a{suffix}") as image:
        assert (image.n_frames, image.size) == (3, (8, 6))
        shown = []
        for frame in range(3):
            image.seek(frame)
            shown.append(np.asarray(image.convert("RGB"))[0, 0, 0])
            image.load()
            assert image.info["duration"] == (400 if frame == 2 else 100)
    assert shown == [0, 120, 255]


def test_an_animation_needs_a_format_that_moves(tmp_path):
    with pytest.raises(InputError, match="an animation is written as one of .gif, .webp, .apng"):
        save_animation(tmp_path / "a.png", [PICTURE, PICTURE])
    assert only_files_in(tmp_path) == []
