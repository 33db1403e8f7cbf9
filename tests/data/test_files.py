"""Which files are pictures: the same ones for training and evaluation, and no file is left aside in silence."""

from __future__ import annotations

import os
import shutil
import socket

import numpy as np
import pytest
from PIL import Image

from var_jax.data.files import SUFFIXES, Aside, entries, find_pictures
from var_jax.data.folder import Folder
from var_jax.data.report import notes, report
from var_jax.data.sources import SPLITS
from var_jax.errors import InputError
from var_jax.evaluation.pictures import FolderPictures


def save(path, value=128):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (value, 20, 30)).save(path)


@pytest.fixture
def letters(tmp_path):
    for label in "ab":
        for i in range(4):
            save(tmp_path / "letters" / label / f"{i:03}.png", i)
    return tmp_path / "letters"


def trained(path) -> set[str]:
    """The pictures of both splits."""
    sources = [Folder(split, path) for split in SPLITS]
    return {str(source.file(i).relative_to(path)) for source in sources for i in range(len(source))}


def found(path) -> list[str]:
    """The pictures of an evaluation, in its order."""
    return list(map(str, find_pictures(path, Aside(path))))


def said(path) -> str:
    return "\n".join(notes(*(Folder(split, path) for split in SPLITS)))


def test_litter_is_neither_a_class_nor_a_picture(letters):
    before = found(letters)
    for name in (".DS_Store", "a/._000.png", "a/Thumbs.db", "a/desktop.ini", "a/.hidden.png"):
        (letters / name).write_bytes(b"litter")
    folders = (".ipynb_checkpoints", "a/.thumbnails", "__MACOSX", "a/@eaDir", "lost+found", "a/.a/b", "$RECYCLE.BIN")
    for folder in folders:
        save(letters / folder / "000-checkpoint.png")
    assert found(letters) == before
    assert trained(letters) == set(before)
    assert Folder("train", letters).class_names == ("a", "b")
    assert said(letters) == ""
    shutil.copytree(letters, letters.parent / ".hidden" / "letters")  # a path of the user's own may be hidden
    assert found(letters.parent / ".hidden" / "letters") == before


def test_litter_beside_pictures_to_evaluate(tmp_path):
    for name in ("0.png", "1.png", ".ipynb_checkpoints/0-checkpoint.png", ".thumbnails/x.png", "._0.png"):
        save(tmp_path / "flat" / name)
    pictures = FolderPictures(tmp_path / "flat")
    assert (pictures.count, pictures.notes()) == (2, [])


def test_deeper_folders_are_counted_and_training_and_evaluation_agree(letters):
    for i in range(6):
        save(letters / "a" / "more" / f"{i}.png")
        save(letters / "a" / "more" / "still" / f"{i}.png")
    assert trained(letters) == set(found(letters))
    assert len(found(letters)) == 8
    assert f"{letters}: not taken, pictures in folders inside a folder of pictures: 12 (a/more/0.png and" in said(
        letters
    )
    assert FolderPictures(letters).notes() == said(letters).splitlines()
    assert "inside a folder of pictures: 12" in "\n".join(report("folder", False, path=letters))


def test_evaluation_looks_below_folders_without_pictures(tmp_path):
    """And a folder of samples may have pictures beside its folders."""
    names = ["p0/a/1.png", "p0/b/2.png", "p1/a/0.png", "x.png"]
    for name in names:
        save(tmp_path / name)
    assert found(tmp_path) == names


def test_other_suffixes(letters):
    """Everything that the allowed decoders read is a picture, everything else is counted."""
    for suffix, kind in {"gif": "GIF", "jfif": "JPEG", "jpe": "JPEG", "ppm": "PPM", "pgm": "PPM", "pnm": "PPM"}.items():
        Image.new("L", (4, 4), 128).save(letters / "a" / f"x.{suffix}", kind)
    Image.new("RGB", (4, 4)).save(letters / "a" / "x.JPG", "JPEG")
    more = 7 + (".avif" in SUFFIXES)
    if ".avif" in SUFFIXES:
        Image.new("RGB", (4, 4)).save(letters / "a" / "x.avif")
    for name in ("y.jp2", "z.JP2", "y.heic", "y", "y.eps"):
        (letters / "b" / name).write_bytes(b"?")
    (letters / "b" / "captions.txt").write_text("texts beside pictures are no loss")
    assert trained(letters) == set(found(letters))
    assert len(found(letters)) == 8 + more
    for split in SPLITS:
        source = Folder(split, letters)
        assert all(source[i][0].shape == (4, 4, 3) for i in range(len(source)))
    line = f"{letters}: not taken, files of other kinds: 5 (2 .jp2, 1 .heic, 1 without a suffix, 1 .eps)"
    assert sorted(said(letters).split("(")[1]) == sorted(line.split("(")[1])
    assert FolderPictures(letters).notes()[0] == said(letters)


def test_links(letters, tmp_path):
    """They are followed, to folders too; one that leads nowhere is a picture that cannot be read."""
    (letters / "a" / "link.png").symlink_to(letters / "b" / "000.png")
    save(tmp_path / "elsewhere" / "1.png")
    save(tmp_path / "elsewhere" / "2.png")
    (letters / "c").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert trained(letters) == set(found(letters))
    assert len(found(letters)) == 11
    assert said(letters) == ""
    (letters / "a" / "dead.png").symlink_to(tmp_path / "gone.png")
    (letters / "a" / "self.png").symlink_to("self.png")
    (letters / "d").symlink_to(tmp_path / "unmounted")
    assert trained(letters) == set(found(letters))
    assert len(found(letters)) == 13
    assert "cannot be read, links that lead to no file: 3 (" in said(letters)
    with pytest.raises(InputError, match=r"a/dead.png: is a link that leads nowhere; check the path"):
        FolderPictures(letters)


def test_links_that_lead_back(letters):
    (letters / "a" / "up").symlink_to("..")
    (letters / "a" / "again").symlink_to(".")
    assert trained(letters) == set(found(letters))
    line = "not looked into, links to folders inside a folder of pictures or a linked one: 2 (a/"
    assert line in said(letters)
    assert line in FolderPictures(letters).notes()[0]
    deep = letters.parent / "deep" / "p"
    deep.mkdir(parents=True)
    save(deep / "q" / "1.png")
    (deep / "up").symlink_to("..")
    assert found(letters.parent / "deep") == ["p/q/1.png"]


def test_a_link_out_of_the_folder_does_not_lead_through_the_whole_disk(letters):
    (letters / "a" / "disk").symlink_to("/")
    assert trained(letters) == set(found(letters))
    outside = letters.parent / "outside"
    outside.mkdir()
    (outside / "disk").symlink_to("/")
    (letters.parent / "samples" / "first").mkdir(parents=True)
    (letters.parent / "samples" / "first" / "outside").symlink_to(outside)
    assert found(letters.parent / "samples") == []


def test_what_is_no_file_is_never_opened(letters):
    os.mkfifo(letters / "a" / "y.jpg")  # opening it would wait for ever
    here = os.getcwd()
    os.chdir(letters / "a")  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("s.png")
    os.chdir(here)
    (letters / "a" / "folder.png").mkdir()
    save(letters / "a" / "folder.png" / "in.png")
    (letters / "b" / "pipe.png").symlink_to(letters / "a" / "y.jpg")
    assert trained(letters) == set(found(letters))
    assert "neither files nor folders: 2 (" in said(letters)
    assert "inside a folder of pictures: 1 (a/folder.png/in.png)" in said(letters)
    source = Folder("train", letters)
    with pytest.raises(InputError, match="pipe.png: is not a regular file"):
        [source[i] for i in range(len(source))]


def test_order_and_ids_are_those_of_the_alphabet(tmp_path):
    """Runs resume, and stores name pictures by number: a new version lists the same pictures in the same order."""
    for name in (
        "b/10.png",
        "b/2.png",
        "B/x.png",
        "B/é.png",
        "b/a b.png",
        "10/1.png",
        "10/0.png",
        "9/1.png",
        "9/2.png",
    ):
        save(tmp_path / "train" / name)
    save(tmp_path / "val" / "b" / "1.png")
    source = Folder("train", tmp_path)
    assert source.class_names == ("10", "9", "B", "b")
    names = ["10/0.png", "10/1.png", "9/1.png", "9/2.png", "B/x.png", "B/é.png", "b/10.png", "b/2.png", "b/a b.png"]
    assert [str(source.file(i).relative_to(tmp_path / "train")) for i in range(len(source))] == names
    assert found(tmp_path / "train") == names


def test_a_folder_that_cannot_be_listed(letters, monkeypatch):
    (letters / "a" / "closed").mkdir()
    list_as_ever = os.scandir

    def closed(path):
        if os.fspath(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return list_as_ever(path)

    monkeypatch.setattr(os, "scandir", closed)
    assert "not looked into, folders that cannot be listed: 1 (a/closed)" in said(letters)
    (letters / "closed").mkdir()
    for look in (trained, found):
        with pytest.raises(InputError, match=r"closed: the folder cannot be listed \(Permission denied\); see who may"):
            look(letters)


@pytest.mark.parametrize("seed", range(20))
def test_training_and_evaluation_agree_on_random_folders(tmp_path, seed):
    """Names, suffixes, depths, links at random."""
    draw = np.random.default_rng(seed)
    picture = tmp_path / "real.png"
    save(picture)
    root = tmp_path / "root"
    for label in ("a", "B", "10", "ü"):
        for i in range(2):
            (root / label).mkdir(parents=True, exist_ok=True)
            shutil.copy(picture, root / label / f"{i}.png")
    folders = [root / label for label in ("a", "B", "10", "ü")]
    for number in range(30):
        folder = folders[draw.integers(len(folders))]
        name = str(draw.choice(["x", "._x", "a.b", "X y", ".h"])) + str(number)
        place = folder / (name + str(draw.choice([".png", ".PNG", ".gif", ".jp2", ".txt", "", ".d.png"])))
        match draw.integers(5):
            case 0:
                place.mkdir()
                folders.append(place)
            case 1:
                place.symlink_to(picture if draw.random() < 0.7 else tmp_path / "gone")
            case 2:
                place.symlink_to(folders[draw.integers(len(folders))])
            case _:
                shutil.copy(picture, place)
    assert trained(root) == set(found(root))
    assert entries(root, Aside(root)).folders == sorted(["a", "B", "10", "ü"])
