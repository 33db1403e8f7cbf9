"""Many pictures: one order, killed and resumed byte for byte, never mixed with others."""

from __future__ import annotations

import errno
import io
import json
import os

import jax
import numpy as np
import pytest
from PIL import Image

from var_jax.errors import InputError
from var_jax.generation.bulk import NpzFile, PngFolder, draw_all, shuffled

CLASSES, EACH, SIZE, SEED = (4, 0, 9), 7, 4, 3
SETTINGS = {"seed": SEED, "guidance": 1.5, "top_k": (1, 2)}


class Killed(BaseException):
    """Stands for a signal that no handler sees."""


def fake_draw(labels, keys):
    """Pictures that tell label and key."""
    bits = np.asarray(jax.random.key_data(keys)).view(np.uint8).reshape(len(labels), -1)
    picture = np.concatenate([np.asarray(labels, np.uint8)[:, None], bits], axis=1)
    return np.tile(picture, (1, 6))[:, : SIZE * SIZE * 3].reshape(-1, SIZE, SIZE, 3)


def dying(after):
    left = [after]

    def draw(labels, keys):
        if not left[0]:
            raise Killed
        left[0] -= 1
        return fake_draw(labels, keys)

    return draw


def target(kind, path, settings=SETTINGS):
    labels, indices = shuffled(CLASSES, EACH)
    if kind == "npz":
        return NpzFile(path, labels, SIZE, settings), labels, indices
    return PngFolder(path, labels, indices, settings), labels, indices


def run(kind, path, draw=fake_draw, batch=4):
    made, labels, indices = target(kind, path)
    draw_all(draw, made, labels, indices, SEED, batch)


def files(path):
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())} if path.is_dir() else path.read_bytes()


def test_the_order_is_shuffled_and_fixed():
    labels, indices = shuffled(CLASSES, EACH)
    pairs = list(zip(labels.tolist(), indices.tolist(), strict=True))
    assert sorted(pairs) == sorted((label, index) for label in CLASSES for index in range(EACH))
    assert len(set(labels[: EACH + 2].tolist())) == 3  # classes are mixed
    again = list(zip(*(part.tolist() for part in shuffled(CLASSES[::-1], EACH + 1)), strict=True))
    assert [pair for pair in again if pair in pairs] == pairs  # more of them change nothing
    assert pairs[:4] == [(9, 0), (4, 6), (9, 4), (0, 6)]  # for ever: resumed files depend on it


@pytest.mark.parametrize("kind", ["npz", "folder"])
def test_killed_twice_and_restarted_it_is_the_unbroken_one(tmp_path, kind, capsys):
    whole, broken = (tmp_path / f"{name}.npz" if kind == "npz" else tmp_path / name for name in ("whole", "broken"))
    run(kind, whole)
    for batches_done in (2, 1):
        with pytest.raises(Killed):
            run(kind, broken, dying(batches_done))
    if kind == "npz":
        assert not broken.exists()
    capsys.readouterr()
    run(kind, broken)
    assert "12/21 pictures are there already" in capsys.readouterr().out
    assert files(broken) == files(whole)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([whole.name, broken.name])
    run(kind, broken, dying(0))  # nothing is left to draw
    assert files(broken) == files(whole)


def test_batches_change_nothing(tmp_path):
    run("npz", tmp_path / "a.npz", batch=4)
    run("npz", tmp_path / "b.npz", batch=64)
    assert files(tmp_path / "a.npz") == files(tmp_path / "b.npz")


def test_what_an_evaluator_reads(tmp_path):
    run("npz", tmp_path / "a.npz")
    run("folder", tmp_path / "a")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        images, labels = file["arr_0"], file["arr_1"]
        assert json.loads(str(file["settings"])) == json.loads(json.dumps(SETTINGS))
    assert (images.shape, images.dtype) == ((21, SIZE, SIZE, 3), np.uint8)
    np.testing.assert_array_equal(images[:, 0, 0, 0], labels)
    pictures = sorted((tmp_path / "a").glob("*.png"))
    for place, file in enumerate(pictures):
        number, name, _ = file.stem.split("_")
        assert (int(number), name) == (place, f"class{labels[place]}")
        with Image.open(file) as image:
            np.testing.assert_array_equal(np.asarray(image), images[place])
    assert len(pictures) == 21


def test_a_half_written_picture_is_drawn_again(tmp_path):
    run("folder", tmp_path / "a")
    before = files(tmp_path / "a")
    name = sorted(before)[5]
    (tmp_path / "a" / name).rename(tmp_path / "a" / f".{name}.tmp")
    run("folder", tmp_path / "a")
    assert files(tmp_path / "a") == before


@pytest.mark.parametrize("kind", ["npz", "folder"])
def test_other_settings_are_not_mixed(tmp_path, kind):
    path = tmp_path / ("a.npz" if kind == "npz" else "a")
    with pytest.raises(Killed):
        run(kind, path, dying(1))
    for _ in range(2):
        with pytest.raises(InputError, match="holds pictures with guidance 1.5, not 2.0; choose another --out"):
            target(kind, path, SETTINGS | {"guidance": 2.0})
        run(kind, path)  # and once it is whole


@pytest.mark.parametrize("kind", ["npz", "folder"])
def test_two_commands_do_not_draw_into_one_place(tmp_path, kind):
    """The second one is refused, and the first one ends well; it used to remove the parts of the second."""
    path, refused = tmp_path / ("a.npz" if kind == "npz" else "a"), []

    def draw(labels, keys):
        if not refused:
            with pytest.raises(InputError, match=f"{path}: another command is drawing these pictures") as caught:
                run(kind, path)
            refused.append(caught.value)
        return fake_draw(labels, keys)

    run(kind, path, draw)
    run(kind, tmp_path / f"b{path.suffix}")
    assert refused and files(path) == files(tmp_path / f"b{path.suffix}")
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("kind", ["npz", "folder"])
def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path, kind, monkeypatch):
    path, left = tmp_path / ("a.npz" if kind == "npz" else "a"), [9]
    real = os.fsync

    def full(descriptor):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match=r"a.*cannot be written \(No space left on device\); free") as caught:
        run(kind, path)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    run(kind, path)
    run(kind, tmp_path / f"b{path.suffix}")
    assert files(path) == files(tmp_path / f"b{path.suffix}")


def test_damaged_targets_are_refused(tmp_path):
    """An .npz that holds something else, in every way; settings that are damaged."""
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    settings = lambda text: {"settings": np.asarray(text)}
    for number, content in enumerate(
        [b"", stream.getvalue(), settings("[" * 100_000), settings("[1]"), settings("{"), {"settings": np.zeros(9)}, {}]
    ):
        path = tmp_path / f"{number}.npz"
        np.savez(path, **content) if isinstance(content, dict) else path.write_bytes(content)
        with pytest.raises(InputError, match=f"{path}: exists and holds something else") as caught:
            target("npz", path)
        assert "\n" not in str(caught.value)
    for number, content in enumerate([b"[" * 100_000, b"\xff\xfe", b"[]", b""]):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        (folder / "settings.json").write_bytes(content)
        with pytest.raises(InputError, match=f"{folder}/settings.json: .*settings of pictures"):
            target("folder", folder)


def test_what_is_no_place_for_pictures(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "diary.txt").write_text("dear")
    (tmp_path / "file").write_text("precious")
    (tmp_path / "a.npz").write_text("precious")
    np.savez(tmp_path / "b.npz", arr_0=np.zeros(3))
    for kind, name, needle in (
        ("folder", "full", "holds other files and no settings.json"),
        ("folder", "file", "is a file, expected a folder"),
        ("npz", "a.npz", "exists and holds something else"),
        ("npz", "b.npz", "exists and holds something else"),
    ):
        with pytest.raises(InputError, match=needle):
            target(kind, tmp_path / name)
    assert (tmp_path / "a.npz").read_text() == "precious"
