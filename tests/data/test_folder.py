"""A folder of pictures: classes, formats, the split, and one clear line for each way it can be wrong."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from PIL import Image

from var_jax.data.folder import Folder
from var_jax.data.report import notes
from var_jax.data.sources import make_source
from var_jax.errors import InputError


def save(path, value=128, mode="RGB", size=(6, 4), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = (value,) * len(Image.new(mode, (1, 1)).getbands())
    Image.new(mode, size, colour if len(colour) > 1 else value).save(path, **options)


def both(path, **options):
    return [make_source("folder", split, path=path, **options) for split in ("train", "validation")]


def names(source):
    return {str(source.file(i).relative_to(source.file(i).parents[1])) for i in range(len(source))}


@pytest.fixture
def animals(tmp_path):
    for label, count in {"zebra": 30, "ant": 20, "Cat": 10}.items():
        for i in range(count):
            save(tmp_path / label / f"{i:02}.png", value=i)
    return tmp_path


def test_classes_in_alphabetical_order(animals):
    (animals / ".cache").mkdir()
    (animals / "ant" / "notes.txt").write_text("not a picture")
    (animals / "ant" / "._00.png").write_bytes(b"not a picture")
    (animals / "README.md").write_text("not a class")
    train, validation = both(animals, validation_share=0.3)
    assert train.class_names == validation.class_names == ("Cat", "ant", "zebra")
    counts = np.bincount(train.labels()) + np.bincount(validation.labels())
    np.testing.assert_array_equal(counts, [10, 20, 30])
    image, label = train[len(train) - 1]
    assert (image.shape, image.dtype, label) == ((4, 6, 3), np.uint8, 2)
    assert int(train.file(len(train) - 1).stem) == image[0, 0, 0]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(train))[3][0], train[3][0])


def test_every_picture_is_in_one_split(animals):
    train, validation = (names(source) for source in both(animals, validation_share=0.3))
    assert not train & validation
    assert len(train | validation) == 60
    assert 8 <= len(validation) <= 28


def test_the_split_stays_when_pictures_are_added(animals):
    before = names(Folder("validation", animals, 0.3))
    for i in range(30, 60):
        save(animals / "ant" / f"{i}.png")
    save(animals / "bee" / "1.png")
    save(animals / "bee" / "2.png")
    after = names(Folder("validation", animals, 0.3))
    assert before < after
    assert names(Folder("validation", animals, 0.3, seed=1)) != after


def test_small_classes_are_in_both_splits(tmp_path):
    for i in range(20):
        save(tmp_path / f"class{i:02}" / "a.png")
        save(tmp_path / f"class{i:02}" / "b.png")
    for share in (0.01, 0.99):
        for source in both(tmp_path, validation_share=share):
            np.testing.assert_array_equal(np.bincount(source.labels()), np.ones(20))


@pytest.mark.parametrize("validation_name", ["val", "validation"])
def test_a_folder_that_is_split_already(tmp_path, validation_name):
    for label in ("a", "b"):
        save(tmp_path / "train" / label / "1.png")
    save(tmp_path / validation_name / "b" / "2.png")
    train, validation = both(tmp_path)
    assert names(train) == {"a/1.png", "b/1.png"}
    assert names(validation) == {"b/2.png"}
    assert validation.class_names == ("a", "b")
    assert validation[0][1] == 1


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("train", "test", "'test' and 'train'"),
        ("train", "valid", "'train' and 'valid'"),
        ("Train", "Val", "'Train' and 'Val'"),
        ("training", "animals", "'training'"),
    ],
)
def test_splits_by_other_names(tmp_path, first, second, said):
    for name in (first, second):
        for i in range(2):
            save(tmp_path / name / "a" / f"{i}.png")
    if second == "animals":
        save(tmp_path / second / "1.png")
    with pytest.raises(InputError) as raised:
        Folder("train", tmp_path)
    assert f"{said} would be classes here, and hold folders alone; splits must be called train and val" in str(
        raised.value
    )


def test_folders_beside_the_splits_and_pictures_beside_the_classes(tmp_path):
    for name in ("train", "val", "test"):
        save(tmp_path / name / "a" / "1.png")
    save(tmp_path / "train" / "preview.png")
    train, validation = both(tmp_path)
    assert train.notes == (
        f"{tmp_path}: not taken, pictures beside the class folders: 1 (train/preview.png)",
        f"{tmp_path}: not taken, folders beside those of the splits: 1 (test)",
    )
    assert validation.notes == train.notes[1:]


@pytest.mark.parametrize("path", ["", None])
def test_a_path_that_is_not_given(path, monkeypatch, animals):
    """It is not the current folder."""
    monkeypatch.chdir(animals)
    with pytest.raises(InputError, match="the folder of pictures is not named: give data.options.path"):
        Folder("train", path)


def test_names_of_classes_that_mislead(tmp_path):
    """They are read, and said."""
    for name in (*map(str, range(12)), "None"):
        save(tmp_path / name / "1.png")
        save(tmp_path / name / "2.png")
    lines = notes(*both(tmp_path))
    assert lines == [
        "class 'None' is called by the word for no class: in text, like --classes, write its id 12",
        "class '10' has the id 2, as ids follow the alphabet: in text, like --classes, a number is a name where there "
        "is one; in Python it is an id",
    ]


def test_a_class_may_be_called_train(tmp_path):
    for label in ("train", "bus"):
        for i in range(4):
            save(tmp_path / label / f"{i}.png")
    assert both(tmp_path)[0].class_names == ("bus", "train")


def test_every_format(tmp_path):
    save(tmp_path / "a" / "1.JPG", quality=95)
    save(tmp_path / "a" / "2.webp", lossless=True)
    save(tmp_path / "a" / "3.png", mode="L")
    save(tmp_path / "a" / "5.png", mode="I;16", value=128 * 257)
    Image.new("RGBA", (6, 4), (128, 128, 128, 255)).save(tmp_path / "a" / "6.png")
    Image.new("RGB", (6, 4), (128, 128, 128)).quantize(4).save(tmp_path / "a" / "4.png")
    train, validation = both(tmp_path, validation_share=0.5)
    for source in (train, validation):
        for i in range(len(source)):
            image = source[i][0]
            assert (image.shape, image.dtype) == ((4, 6, 3), np.uint8), source.file(i)
            assert np.abs(image.astype(int) - 128).max() <= 1, source.file(i)
    assert len(train) + len(validation) == 6


def test_a_damaged_picture_is_named_when_it_is_read(animals):
    (animals / "ant" / "07.png").write_bytes(b"\x89PNG and then nothing")
    reached = 0
    for source in both(animals):
        for i in range(len(source)):
            if source.file(i).name == "07.png" and source.labels()[i] == 1:
                reached += 1
                with pytest.raises(InputError, match=r"ant/07\.png"):
                    source[i]
            else:
                source[i]
    assert reached == 1


def empty_class(path):
    save(path / "a" / "1.png")
    (path / "b").mkdir()


def nested_class(path):
    save(path / "b" / "deeper" / "1.png")


def one_picture(path):
    save(path / "a" / "1.png")
    save(path / "a" / "2.png")
    save(path / "b" / "1.png")


def nothing_readable(path):
    for name in ("1.png", "2.jpg", "3.webp"):
        (path / "a").mkdir(exist_ok=True)
        (path / "a" / name).write_bytes(b"rubbish")


def two_validations(path):
    for name in ("train", "val", "validation"):
        save(path / name / "a" / "1.png")


def unknown_class(path):
    save(path / "train" / "a" / "1.png")
    save(path / "val" / "b" / "1.png")


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda path: None, "has no class folders"),
        (lambda path: save(path / "1.png"), "has no class folders"),
        (empty_class, "class 'b' holds no picture; add some"),
        (nested_class, "pictures must lie directly in it"),
        (one_picture, "class 'b' has one picture, which cannot be split"),
        (nothing_readable, "none of its 2 pictures can be read"),
        (two_validations, "has both val and validation"),
        (unknown_class, "class 'b' has no folder in"),
    ],
    ids=["empty", "flat", "empty-class", "nested", "one-picture", "unreadable", "two-validations", "unknown-class"],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, build, said):
    build(tmp_path)
    with pytest.raises(InputError, match=said) as raised:
        for split in ("train", "validation"):
            make_source("folder", split, path=tmp_path)
    assert str(tmp_path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_folder_and_a_file(tmp_path):
    with pytest.raises(InputError, match="nowhere: no such folder"):
        make_source("folder", "train", path=tmp_path / "nowhere")
    save(tmp_path / "1.png")
    with pytest.raises(InputError, match="is a file"):
        make_source("folder", "train", path=tmp_path / "1.png")


@pytest.mark.parametrize("share", [0.0, 1.0, float("nan")])
def test_a_share_that_empties_a_split(animals, share):
    with pytest.raises(InputError, match="validation_share"):
        Folder("train", animals, share)


def test_the_path_is_needed():
    with pytest.raises(InputError, match="needs the option path"):
        make_source("folder", "train")
