"""`var-jax sample` and `reconstruct`: pictures of the expected size, the same from the same seed, and every refusal."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import run
from tests.formats.samples import only_files_in
from var_jax.bundle import load
from var_jax.data.images import centre_crop, read_image
from var_jax.generation.pictures import to_uint8

SIZE, GAP, CAPTION = 6, 2, 14
CLASSES = 5


def sample(pair, out, *options):
    """The grid drawn with two pictures a class and a batch of two, which is one program for all that use it."""
    assert run("sample", "--model", pair.model, "--per-class", 2, "--batch", 2, *options, "--out", out) == 0
    with Image.open(out) as image:
        return np.asarray(image)


def tiles(grid, top=0):
    """[rows, columns, size, size, 3] of a grid, whose gaps have to be white."""
    rows, columns = ((length + GAP) // (SIZE + GAP) for length in (grid.shape[0] - top, grid.shape[1]))
    assert grid.shape == (top + rows * (SIZE + GAP) - GAP, columns * (SIZE + GAP) - GAP, 3)
    grid = np.pad(grid[top:], ((0, GAP), (0, GAP), (0, 0)), constant_values=255)
    cells = grid.reshape(rows, SIZE + GAP, columns, SIZE + GAP, 3).transpose(0, 2, 1, 3, 4)
    assert np.all(cells[:, :, SIZE:] == 255)
    assert np.all(cells[:, :, :, SIZE:] == 255)
    return cells[:, :, :SIZE, :SIZE]


def test_a_strip_shows_every_scale(pair, tmp_path, capsys):
    Image.new("L", (5, 30), 99).save(tmp_path / "grey.png")
    files = [pair.picture, tmp_path / "grey.png"]
    assert run("reconstruct", *files, "--model", pair.model, "--out", tmp_path / "new" / "strip.png") == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = printed.out.splitlines()
    assert [line.split(": PSNR ")[0] for line in lines[:2]] == [str(file) for file in files]
    assert lines[0].endswith(" dB from all 3 scales")
    assert lines[2:] == [f"wrote {tmp_path / 'new' / 'strip.png'}"]
    with Image.open(tmp_path / "new" / "strip.png") as image:
        drawn = tiles(np.asarray(image), CAPTION)
    assert drawn.shape[:2] == (2, 4)
    bundle = load(pair.model)
    for file, row in zip(files, drawn, strict=True):
        original = centre_crop(read_image(file), SIZE)
        np.testing.assert_array_equal(row[0], original)
        tokens = bundle.encode(original[None])
        for scales in (1, 2, 3):
            np.testing.assert_array_equal(row[scales], to_uint8(bundle.decode(tokens, scales))[0])


def test_a_tokenizer_alone_can_reconstruct(pair, tmp_path):
    for model in (pair.model, pair.tokenizer_only):
        assert run("reconstruct", pair.picture, "--model", model, "--out", tmp_path / f"{model.name}.png") == 0
    assert (tmp_path / "model.png").read_bytes() == (tmp_path / "tokenizer_only.png").read_bytes()


def test_a_grid_has_a_row_a_class(pair, tmp_path, capsys):
    drawn = tiles(sample(pair, tmp_path / "grid.png", "--classes", "3,0, 4"))
    assert drawn.shape[:2] == (3, 2)
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.startswith("2/6 pictures, ")
    assert printed.out.endswith(f"wrote {tmp_path / 'grid.png'}: a row each for classes 3, 0, 4\n")
    assert len({picture.tobytes() for row in drawn for picture in row}) == 6


def test_a_picture_depends_on_seed_class_and_index_alone(pair, tmp_path):
    whole = tiles(sample(pair, tmp_path / "a.png", "--seed", 5))
    assert whole.shape[:2] == (CLASSES, 2)
    sample(pair, tmp_path / "b.png", "--seed", 5)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    some = tiles(sample(pair, tmp_path / "c.png", "--seed", 5, "--classes", "4 1"))
    np.testing.assert_array_equal(some, whole[[4, 1]])
    single = tiles(sample(pair, tmp_path / "d.png", "--seed", 5, "--classes", "2", "--per-class", 3))
    np.testing.assert_array_equal(single[0, :2], whole[2])  # in other batches
    other = tiles(sample(pair, tmp_path / "e.png", "--seed", 6))
    assert not any(np.array_equal(a, b) for a, b in zip(other.reshape(-1, 108), whole.reshape(-1, 108), strict=True))


def test_settings_reach_the_sampler(pair, tmp_path):
    usual = sample(pair, tmp_path / "a.png", "--classes", "1")
    for number, options in enumerate(
        (
            ["--guidance", "9"],
            ["--schedule", "interval:0,0.5"],
            ["--top-k", "0,0,1"],
            ["--top-p", "0.1"],
            ["--temperature", "9"],
            ["--classes", "none"],
        )
    ):
        assert np.any(sample(pair, tmp_path / f"{number}.png", "--classes", "1", *options) != usual), options
    greedy = [sample(pair, tmp_path / f"g{seed}.png", "--top-k", "1", "--seed", seed) for seed in (0, 1)]
    np.testing.assert_array_equal(*greedy)


def test_a_picture_grows_by_scale(pair, tmp_path):
    plain = tiles(sample(pair, tmp_path / "a.png", "--classes", "1,3"))
    strip = tiles(sample(pair, tmp_path / "b.png", "--classes", "1,3", "--growth"), CAPTION)
    assert strip.shape[:2] == (4, 3)  # a row a picture, a column a scale
    np.testing.assert_allclose(strip[:, -1].astype(int), plain.reshape(4, SIZE, SIZE, 3).astype(int), atol=1)
    assert np.any(strip[:, 0] != strip[:, -1])
    for suffix in ("gif", "webp"):
        sample(pair, tmp_path / f"c.{suffix}", "--classes", "1,3", "--growth")
        with Image.open(tmp_path / f"c.{suffix}") as animation:
            assert animation.n_frames == 3
            assert animation.size == (2 * SIZE + GAP, 2 * SIZE + GAP)
            animation.seek(2)
            last = np.asarray(animation.convert("RGB"))
        if suffix == "webp":  # without loss
            np.testing.assert_array_equal(last[:SIZE, :SIZE], strip[0, -1])


def test_many_pictures_over_all_devices(pair, tmp_path, capsys):
    """Into a folder and a file, over eight devices; what a grid draws on one."""
    usual = ("sample", "--model", pair.model, "--seed", 5, "--batch", 7)
    for out in (tmp_path / "many.npz", tmp_path / "many"):
        assert run(*usual, "--per-class", 2, "--out", out) == 0
        printed = capsys.readouterr()
        assert printed.err == ""
        assert printed.out.endswith(f"wrote {out}: 10 pictures in shuffled order\n")
    with np.load(tmp_path / "many.npz") as file:
        images, labels = file["arr_0"], file["arr_1"]
    assert sorted(labels.tolist()) == sorted([*range(CLASSES)] * 2)
    whole = tiles(sample(pair, tmp_path / "a.png", "--seed", 5))
    files = sorted((tmp_path / "many").glob("*.png"))
    assert len(files) == 10
    for file, image in zip(files, images, strict=True):
        _, label, index = file.stem.split("_")
        with Image.open(file) as saved:
            np.testing.assert_array_equal(np.asarray(saved), image)
        one = whole[int(label.removeprefix("class")), int(index)]
        np.testing.assert_allclose(image.astype(int), one.astype(int), atol=1)
    before = {file.name: file.read_bytes() for file in files}
    files[3].unlink()
    assert run(*usual, "--per-class", 2, "--out", tmp_path / "many") == 0
    assert "9/10 pictures are there already" in capsys.readouterr().out
    assert {file.name: file.read_bytes() for file in files} == before
    for out in (tmp_path / "many.npz", tmp_path / "many"):
        assert run(*usual, "--per-class", 3, "--out", out) == 2
        assert "holds pictures with per_class 2, not 3; choose another --out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "needle"),
    [
        (["--classes", "5"], "class id 5: this model has classes 0 to 4"),
        (["--classes", "0,-1"], "class id -1: this model has classes 0 to 4"),
        (["--classes", "-1"], "class id -1"),
        (["--classes", "cat"], "class 'cat': expected a class id, as this model's classes have no names"),
        (["--classes", "1;2"], "class '1;2'"),
        (["--classes", "²"], "class '²'"),
        (["--classes=--1"], "class '--1'"),
        (["--classes", " , "], "--classes ' , ': expected class ids like 207,980, or names"),
        (["--classes", "1" * 5000], "expected a class id"),
        (["--temperature", "-1"], "temperature -1.0: expected a number above 0"),
        (["--temperature", "0"], "temperature 0.0: expected a number above 0 (top_k 1 is the greedy choice)"),
        (["--temperature", "nan"], "temperature nan"),
        (["--temperature", "1e-60"], "temperature 1e-60: expected a number above 0"),
        (["--temperature", "warm"], "invalid float value: 'warm'"),
        (["--top-p", "1.5"], "top_p 1.5: expected 0 to 1"),
        (["--top-p", "-0.5"], "top_p -0.5"),
        (["--top-k", "-1"], "top_k -1: expected a whole number"),
        (["--top-k", "1.5"], "invalid int value: '1.5'"),
        (["--guidance", "inf"], "guidance inf: expected a finite number"),
        (["--per-class", "0"], "--per-class 0: expected 1 or more"),
        (["--batch", "-2"], "--batch -2: expected 1 or more"),
        (["--seed", "-1"], "--seed -1: expected 0 to 4294967295"),
        (["--seed", "4294967296"], "--seed 4294967296: expected 0 to 4294967295"),
        (["--seed", "1" * 40], "expected 0 to 4294967295"),
        (["--top-k", "1,2"], "top_k [1, 2]: expected a number, or one for each scale, which are 3"),
        (["--top-p", "0.5,0.5,2"], "top_p 2.0: expected 0 to 1"),
        (["--schedule", "cosine"], "guidance schedule 'cosine': expected linear, constant, interval:LOW,HIGH"),
        (["--schedule", "interval:0.9,0.1"], "guidance schedule 'interval:0.9,0.1'"),
        (["--growth", "--out", "{new}"], "new.png or .gif"),
        (["--growth", "--out", "{new}.npz"], "--growth: shows scales in one picture"),
        (["--out", "{file}"], "is a file, expected a folder for the pictures"),
        (["--out", "{new}.mp3"], "'.mp3' is not a picture format that can be written; use .png"),
        (["--out", "{folder}"], "a folder or a device stands there"),
        (["--out", "{file}/a.png"], "is no folder you may write to"),
        (["--model", "{missing}"], "missing: no such model directory"),
        (["--model", "{only}"], "has a tokenizer only, import a transformer with it to sample"),
        (["--model", "{vae}"], "vae.pth: no such model directory"),
        (["--colour"], "--colour"),
    ],
)
def test_what_cannot_be_sampled(pair, tmp_path, refused, options, needle):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("precious")
    places = {"new": tmp_path / "new", "folder": tmp_path / "folder.png", "file": tmp_path / "file"}
    places |= {"missing": tmp_path / "missing", "only": pair.tokenizer_only, "vae": pair.tokenizer}
    usual = ["--model", pair.model, "--out", tmp_path / "new.png"]
    assert needle in refused("sample", *usual, *(option.format(**places) for option in options))


@pytest.mark.parametrize(
    ("images", "options", "needle"),
    [
        ([], [], "required: IMAGE"),
        (["{missing}"], [], "missing: no such picture"),
        (["{picture}", "{missing}"], [], "missing: no such picture"),
        (["{folder}"], [], "is a folder, expected a picture file"),
        (["{picture}", "{text}"], [], "text.png: cannot be read as a picture"),
        (["{cut}"], [], "cut.png: cannot be read as a picture"),
        (["{empty}"], [], "empty.png: cannot be read as a picture"),
        (["{vae}"], [], "vae.pth: cannot be read as a picture"),
        (["{picture}"], ["--model", "{missing}"], "missing: no such model directory"),
        (["{picture}"], ["--model", "{folder}"], "folder.png: not a model directory, it has no config.json"),
        (["{picture}"], ["--out", "{new}.txt"], "'.txt' is not a picture format"),
        (["{picture}"], ["--out", "{folder}"], "a folder or a device stands there"),
        (["{picture}"], ["--out", "{text}/a.png"], "is no folder you may write to"),
    ],
)
def test_what_cannot_be_reconstructed(pair, tmp_path, refused, images, options, needle):
    (tmp_path / "folder.png").mkdir()
    whole = pair.picture.read_bytes()
    for name, content in (("text", b"dear diary"), ("cut", whole[: len(whole) // 2]), ("empty", b"")):
        (tmp_path / f"{name}.png").write_bytes(content)
    places = {name: tmp_path / f"{name}.png" for name in ("text", "cut", "empty", "folder")}
    places |= {"new": tmp_path / "new", "missing": tmp_path / "missing"}
    places |= {"picture": pair.picture, "vae": pair.tokenizer}
    usual = ["--model", pair.model, "--out", tmp_path / "new.png"]
    arguments = [argument.format(**places) for argument in (*images, *options)]
    assert needle in refused("reconstruct", *usual, *arguments)
    assert not any("new" in name for name in only_files_in(tmp_path))
