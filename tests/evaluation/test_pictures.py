"""Where pictures come from, and the traps on the way: layouts, types, missing, mixed and other pictures."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
from PIL import Image

import var_jax
from tests.evaluation.small_judge import CLASSES, DRAWING, TOKENIZER, pictures, small_model
from tests.interop.checkpoints import drawn_model
from var_jax.errors import InputError
from var_jax.evaluation.pictures import FolderPictures, ModelPictures, NpzPictures, open_pictures
from var_jax.generation.batching import class_keys
from var_jax.generation.bulk import shuffled
from var_jax.model_directory import save_model
from var_jax.parallel.mesh import make_mesh


def everything(source, start=0, size=4) -> np.ndarray:
    batches = list(source.batches(start, size))
    assert all(len(batch) == size for batch in batches[:-1])
    return np.concatenate(batches)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_is_streamed_from_any_place(tmp_path, save):
    images = pictures(11)
    save(tmp_path / "a.npz", arr_0=images, mu=np.zeros(3))
    source = open_pictures(tmp_path / "a.npz")
    assert (source.count, source.notes()) == (11, [])
    for start in (0, 7):
        np.testing.assert_array_equal(everything(source, start), images[start:])
    other = images.copy()
    other[5, 1, 1, 1] ^= 1
    save(tmp_path / "b.npz", arr_0=other)
    assert NpzPictures(tmp_path / "b.npz").identity() != source.identity()


@pytest.mark.parametrize(
    ("array", "problem"),
    [
        (pictures(2).transpose(0, 3, 1, 2), r"uint8 \(2, 3, 8, 8\).*channels are in front, give arr_0.transpose"),
        (pictures(2).astype(np.float32), r"float32 \(2, 8, 8, 3\), expected uint8.*\(255 \* x\).astype\(np.uint8\)"),
        (pictures(2)[..., 0], r"uint8 \(2, 8, 8\), expected uint8 \[N, H, W, 3\]; give colour pictures"),
        (pictures(2)[..., [0, 1, 2, 2]], r"\(2, 8, 8, 4\), expected uint8 \[N, H, W, 3\]; give colour pictures"),
        (pictures(0), r"\(0, 8, 8, 3\), expected"),
        (np.asfortranarray(pictures(2)), "in C order; save np.ascontiguousarray"),
        (np.asarray([None]), r"object \(1,\), expected plain numbers"),
    ],
    ids=["channels-first", "floats", "grey", "alpha", "none", "fortran", "objects"],
)
def test_trap_other_arrays_are_refused(tmp_path, array, problem):
    np.savez(tmp_path / "a.npz", arr_0=array)
    with pytest.raises(InputError, match=problem):
        NpzPictures(tmp_path / "a.npz")


def test_damaged_archives_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", arr_1=pictures(2))
    with pytest.raises(InputError, match="holds no pictures, it has no array called arr_0"):
        open_pictures(tmp_path / "a.npz")
    with pytest.raises(InputError, match="no such file, expected an .npz, a folder of pictures or a model directory"):
        open_pictures(tmp_path / "nowhere.npz")
    np.savez(tmp_path / "a.npz", arr_0=pictures(9))
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "short.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="is not a whole .npz file"):
        open_pictures(tmp_path / "short.npz")
    middle = len(whole) // 2
    (tmp_path / "flipped.npz").write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    with pytest.raises(InputError, match="flipped.npz: arr_0 is damaged or no array"):
        everything(open_pictures(tmp_path / "flipped.npz"))


def test_archives_that_lie_are_refused(tmp_path):
    """A count that the bytes do not have (once taken for it, or for -1 pictures), and entries nobody can unpack."""
    image = pictures(4)
    for name, shape in (("fewer", (2, 8, 8, 3)), ("negative", (-1, 8, 8, 3)), ("more", (2**40, 8, 8, 3))):
        with zipfile.ZipFile(tmp_path / f"{name}.npz", "w") as archive, archive.open("arr_0.npy", "w") as file:
            header = np.lib.format.header_data_from_array_1_0(image) | {"shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            file.write(image.tobytes())
        with pytest.raises(InputError, match=f"{name}.npz: arr_0 is damaged or no array") as caught:
            open_pictures(tmp_path / f"{name}.npz")
        assert "\n" not in str(caught.value)
    np.savez(tmp_path / "whole.npz", arr_0=image)
    whole = (tmp_path / "whole.npz").read_bytes()
    directory = whole.index(b"PK\x01\x02")
    for name, offset, value in (("encrypted", 8, 1), ("method", 10, 99), ("version", 6, 255)):
        content = bytearray(whole)
        content[directory + offset] = value
        (tmp_path / f"{name}.npz").write_bytes(content)
        with pytest.raises(InputError, match=f"{name}.npz: ") as caught:
            open_pictures(tmp_path / f"{name}.npz")
        assert "\n" not in str(caught.value)


def save_all(folder, images, names=None):
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / (names[number] if names else f"{number:03}.png"))


def test_folders_are_read_in_the_order_of_their_paths(tmp_path):
    images = pictures(6)
    save_all(tmp_path / "all" / "b", images[3:])
    save_all(tmp_path / "all" / "a", images[:3])
    (tmp_path / "all" / "a" / "notes.txt").write_text("no picture")
    source = open_pictures(tmp_path / "all")
    np.testing.assert_array_equal(everything(source), images)
    np.testing.assert_array_equal(everything(source, 4), images[4:])
    assert source.notes() == []
    before = source.identity()
    Image.fromarray(images[0]).save(tmp_path / "all" / "b" / "003.png")
    assert open_pictures(tmp_path / "all").identity() != before


def test_trap_missing_pictures(tmp_path):
    """A gap in numbered names is told; --count refuses (see the command's tests); numbers that are no row are not."""
    save_all(tmp_path / "a", pictures(8))
    (tmp_path / "a" / "003.png").unlink()
    (tmp_path / "a" / "005.png").unlink()
    (note,) = open_pictures(tmp_path / "a").notes()
    assert note == f"2 pictures seem to be missing, the first is number 3 of {tmp_path / 'a'}/*"
    save_all(tmp_path / "b", pictures(3), ["n0144.png", "n9000.png", "n4711.png"])
    assert open_pictures(tmp_path / "b").notes() == []
    save_all(tmp_path / "c", pictures(3), ["00_class1_0001.png", "01_class3_0000.png", "03_class1_0000.png"])
    assert open_pictures(tmp_path / "c").notes()[0].startswith("1 pictures seem to be missing, the first is number 2 ")
    save_all(tmp_path / "d", pictures(3), ["fox1.png", "fox2.png", "fox4.png"])
    assert open_pictures(tmp_path / "d").notes()[0].endswith(f"number 3 of {tmp_path / 'd'}/fox*")
    with pytest.raises(InputError, match="holds no pictures .*and is no model directory"):
        (tmp_path / "empty").mkdir()
        open_pictures(tmp_path / "empty")


def test_trap_mixed_sizes(tmp_path):
    save_all(tmp_path, pictures(3))
    Image.fromarray(pictures(1, side=12)[0]).save(tmp_path / "002.png")
    with pytest.raises(InputError, match=r"002.png: is 12 x 12 pixels, .*000.png is 8 x 8; give pictures of one size"):
        FolderPictures(tmp_path)
    (tmp_path / "002.png").write_bytes(b"rubbish")
    with pytest.raises(InputError, match="002.png: cannot be read as a picture"):
        FolderPictures(tmp_path)


def test_trap_a_picture_that_lies_on_its_side(tmp_path):
    """Sizes are those of the upright pictures."""
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = np.zeros((6, 4, 3), np.uint8)
    Image.fromarray(upright).save(tmp_path / "0.png")
    for suffix in ("png", "jpg", "webp", "tiff"):
        Image.fromarray(upright.transpose(1, 0, 2)).save(tmp_path / f"1.{suffix}", exif=exif)
    assert everything(FolderPictures(tmp_path)).shape == (5, 6, 4, 3)
    Image.fromarray(upright).save(tmp_path / "2.jpg", exif=exif)
    with pytest.raises(InputError, match=r"2.jpg: is 6 x 4 pixels, .*0.png is 4 x 6; give pictures of one size"):
        FolderPictures(tmp_path)


def test_trap_pictures_that_are_not_rgb(tmp_path):
    images = pictures(4)
    save_all(tmp_path, images)
    Image.fromarray(images[1]).convert("L").save(tmp_path / "001.png")
    Image.fromarray(images[2]).convert("RGBA").save(tmp_path / "002.png")
    Image.fromarray(images[3]).save(tmp_path / "003.jpg")
    (tmp_path / "003.png").unlink()
    source = open_pictures(tmp_path)
    read = everything(source)
    assert read.shape == images.shape
    assert np.ptp(read[1], axis=-1).max() == 0  # grey, in three equal channels
    np.testing.assert_array_equal(read[2], images[2])
    lossy, modes = source.notes()
    assert lossy == "1 of 4 pictures are in a lossy format, published figures use PNG files"
    assert modes.startswith("2 of 4 pictures are not RGB (1 L, 1 RGBA) and were converted")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "model"
    save_model(folder, small_model())
    return folder


@pytest.fixture(scope="module")
def drawn(model):
    return everything(open_pictures(model, DRAWING), size=4)


def test_trap_one_key_for_all_classes(drawn):
    """Each picture has a key of its own: where a key served all classes, there would be three different ones."""
    assert drawn.shape == (3 * CLASSES, 4, 4, 3)
    assert len(np.unique(drawn.reshape(len(drawn), -1), axis=0)) > 0.8 * len(drawn)


def test_a_model_draws_the_same_from_any_place(model, drawn):
    source = open_pictures(model, DRAWING)
    assert source.count == len(drawn)
    np.testing.assert_array_equal(everything(source, 7, 4), drawn[7:])
    assert source.identity() == ModelPictures(model, DRAWING._replace(batch=3)).identity()
    assert source.identity() != ModelPictures(model, DRAWING._replace(seed=1)).identity()
    assert "drawn here: 3 pictures of each of 5 classes, guidance 1.5, top_k 900, top_p 0.96" in source.notes()[0]


def test_trap_bytes_are_truncated_not_rounded(model, drawn):
    """A model's floats become bytes by int(255 x), as published figures have it: half a level darker than rounding."""
    labels, indices = (array[:8] for array in shuffled(range(CLASSES), 3))
    assert len(np.unique(labels)) > 2  # classes are mixed
    bundle = var_jax.load(model).over(make_mesh())
    levels = np.asarray(bundle.generate(labels, class_keys(0, labels, indices), **DRAWING.settings), np.float64) * 255
    inside = (levels > 1) & (levels < 254)
    assert inside.mean() > 0.3
    lost = (levels - drawn[:8])[inside]
    assert np.all((lost > -1e-3) & (lost < 1 + 1e-3))
    assert 0.4 < lost.mean() < 0.6


def test_what_cannot_be_sampled_is_refused(model, tmp_path):
    with pytest.raises(InputError, match="is a model directory, expected pictures or statistics"):
        open_pictures(model)
    save_model(tmp_path / "tokenizer", drawn_model(TOKENIZER, None))
    with pytest.raises(InputError, match="has a tokenizer only"):
        open_pictures(tmp_path / "tokenizer", DRAWING)
    with pytest.raises(InputError, match="0 pictures per class, 8 at a time: expected 1 or more"):
        open_pictures(model, DRAWING._replace(per_class=0))
