"""`var-jax edit`: every task from files to a file, and one line for everything that cannot be."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import run


def read(path):
    with Image.open(path) as image:
        return np.asarray(image)


def edit(pair, out, *options):
    assert run("edit", "--model", pair.model, "--image", pair.picture, *options, "--out", out) == 0
    return read(out)


def test_a_box_and_a_mask_mark_the_same(pair, tmp_path, capsys):
    original = read(pair.picture)  # 12 x 9
    mask = np.zeros((9, 12), np.uint8)
    mask[3:6, 4:8] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    by_box = edit(pair, tmp_path / "box.png", "--task", "inpaint", "--box", "4,3,8,6", "--seed", 1)
    assert capsys.readouterr().out == f"wrote {tmp_path / 'box.png'}: 12 x 9 pixels\n"
    by_mask = edit(pair, tmp_path / "new" / "m.png", "--task", "inpaint", "--mask", tmp_path / "mask.png", "--seed", 1)
    np.testing.assert_array_equal(by_box, by_mask)
    assert np.any(by_box[3:6, 4:8] != original[3:6, 4:8])
    untouched = np.ones((9, 12), bool)
    untouched[2:7, 3:9] = False
    np.testing.assert_array_equal(by_box[untouched], original[untouched])
    other = edit(pair, tmp_path / "other.png", "--task", "inpaint", "--box", "4,3,8,6", "--seed", 2)
    assert np.any(other != by_box)


def test_the_other_tasks(pair, tmp_path):
    original = read(pair.picture)
    out = edit(pair, tmp_path / "a.png", "--task", "outpaint", "--extend", "2,0,1,3")
    assert out.shape == (12, 15, 3)
    np.testing.assert_array_equal(out[:8, 3:13], original[:8, 1:11])  # beyond the soft edge of one pixel
    assert edit(pair, tmp_path / "b.png", "--task", "vary").shape == (9, 12, 3)
    assert edit(pair, tmp_path / "c.png", "--task", "upscale", "--factor", 3).shape == (27, 36, 3)
    changed = [
        edit(pair, tmp_path / f"{label}.png", "--task", "class", "--box", "0,0,6,6", "--class", label)
        for label in (0, 4)
    ]
    assert np.any(changed[0] != changed[1])


@pytest.mark.parametrize(
    ("options", "needle"),
    [
        (["--task", "paint"], "invalid choice: 'paint'"),
        (["--task", "class", "--class", "cat"], "class 'cat': expected a class id"),
        (["--task", "class", "--class", "5"], "class id 5: this model has classes 0 to 4"),
        (["--task", "class"], "task class: needs the class"),
        (["--mask", "{small}"], "mask of 3 x 2 pixels: the picture has 12 x 9, make it the same size"),
        (["--mask", "{black}"], "mask: is empty"),
        (["--mask", "{missing}"], "missing: no such picture"),
        (["--mask", "{text}"], "text.png: cannot be read as a picture"),
        (["--image", "{text}"], "text.png: cannot be read as a picture"),
        (["--image", "{missing}"], "missing: no such picture"),
        (["--guidance", "nan"], "guidance nan: expected a finite number"),
        (["--guidance", "strong"], "invalid float value: 'strong'"),
        (["--schedule", "cosine"], "guidance schedule 'cosine': expected linear"),
        (["--model", "{missing}"], "missing: no such model directory"),
        (["--model", "{only}"], "has a tokenizer only"),
        (["--box", "4,3,8"], "invalid list of four pixels value: '4,3,8'"),
        (["--box", "4,3,x,6"], "invalid list of four pixels value"),
        (["--box", "8,3,4,6"], "box 8,3,4,6: expected 0 <= x0 < x1 <= 12"),
        (["--box", "0,0,13,9"], "box 0,0,13,9"),
        (["--extend", "1,1,1,1"], "--extend: belongs to --task outpaint"),
        (["--extend", "1,1,1,1", "--task", "outpaint", "--box", "0,0,1,1"], "not allowed with"),
        (["--task", "outpaint", "--extend", "0,0,0,0"], "expected the pixels to add"),
        (["--task", "inpaint"], "task inpaint: needs a mask or a box"),
        (["--task", "upscale", "--box", "0,0,1,1"], "--task upscale: enlarges the whole picture"),
        (["--task", "upscale", "--factor", "4"], "factor 4: expected a divisor of the model's picture side 6"),
        (["--task", "vary", "--keep-scales", "4"], "keep_scales 4: expected a whole number, 0 to 3"),
        (["--seed", "-1"], "--seed -1: expected 0 to 4294967295"),
        (["--out", "{missing}.mp3"], "'.mp3' is not a picture format"),
    ],
)
def test_what_cannot_be_edited(pair, tmp_path, refused, options, needle):
    (tmp_path / "text.png").write_bytes(b"dear diary")
    Image.new("L", (3, 2), 255).save(tmp_path / "small.png")
    Image.new("L", (12, 9), 100).save(tmp_path / "black.png")
    places = {name: tmp_path / f"{name}.png" for name in ("text", "small", "black")}
    places |= {"missing": tmp_path / "missing", "only": pair.tokenizer_only}
    given = [option.format(**places) for option in options]
    usual = {"--model": pair.model, "--image": pair.picture, "--task": "inpaint", "--out": tmp_path / "out.png"}
    if "--mask" not in given and "--box" not in given and "inpaint" not in given and "--extend" not in given:
        usual |= {"--box": "4,3,8,6"} if "--task" not in given or "class" in given else {}
    arguments = [part for name, value in usual.items() if name not in given for part in (name, value)]
    assert needle in refused("edit", *arguments, *given)
