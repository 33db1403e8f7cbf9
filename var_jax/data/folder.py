"""A data set from a folder of pictures: one sub-folder per class, class ids in alphabetical order of the names."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from var_jax.data.files import SUFFIXES, Aside, count_nested, entries
from var_jax.data.images import read_image
from var_jax.data.sources import IMAGES, Identity, check_share
from var_jax.errors import InputError, has_control, printable

VALIDATION_NAMES = ("val", "validation")
_LIKE_SPLITS = {"train", "training", "trn", "val", "valid", "validation", "dev", "eval", "test", "testing"}
_BESIDE = "not taken, pictures beside the class folders"
_NO_SPLIT = "not taken, folders beside those of the splits"


class Folder:
    """One split of the pictures under `path`/CLASS/.

    If `path` has a sub-folder `train` and one called `val` or `validation`, those are the splits. Otherwise a
    picture belongs to the validation split if a hash of its class, its name and `seed` falls below
    `validation_share`, so that pictures added later move no others. A class with all its pictures in one split gives
    one of them to the other split. `var_jax.data.files` says which files are pictures.

    Args:
      split: "train" or "validation".
      path: the folder.
      validation_share: between 0 and 1; has no effect on a folder that is split already.
      seed: another seed splits differently.

    Attributes:
      notes: a line for each kind of file that is left aside, or cannot be read.

    Raises:
      InputError: for a missing folder, one without class folders, a class without pictures, a class with one picture
        that would have to be split, or if none of the pictures can be read.
    """

    holds = IMAGES

    def __init__(self, split: str, path: str | os.PathLike[str], validation_share: float = 0.05, seed: int = 0) -> None:
        check_share(validation_share)
        if path is None or not os.fspath(path):
            raise InputError("the folder of pictures is not named: give data.options.path (--path of a command)")
        root, aside = Path(path), Aside(path)
        if not root.exists():
            raise InputError(f"{path}: no such folder, expected one with a sub-folder of pictures per class")
        if not root.is_dir():
            raise InputError(f"{path}: is a file, expected a folder with a sub-folder of pictures per class")
        names = entries(root, Aside(root)).folders
        validation = [name for name in VALIDATION_NAMES if name in names]
        if "train" in names and validation:
            self._root, files = _existing_split(root, split, validation, aside)
            for name in sorted(set(names) - {"train", *validation}):
                aside.add(_NO_SPLIT, root / name)
        else:
            self._root, files = root, _hashed_split(root, split, validation_share, seed, aside)
        self.notes = aside.lines()
        self.class_names = tuple(files)
        self._files = [os.path.join(name, file) for name, found in files.items() for file in found]
        self._labels = np.repeat(np.arange(len(files), dtype=np.int32), [len(found) for found in files.values()])
        # Usually reads one picture, and all only if all are damaged.
        if not any(_is_readable(self.file(i)) for i in range(len(self))):
            raise InputError(f"{self._root}: none of its {len(self)} pictures can be read, are they damaged?")

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Picture `index` as uint8 [H, W, 3] at its original size, and its class id; an error names the file."""
        return np.asarray(read_image(self.file(index)), np.uint8), int(self._labels[index])

    def file(self, index: int) -> Path:
        """The file of picture `index`."""
        return self._root / self._files[index]

    def labels(self) -> np.ndarray:
        """[N] int32 class ids of all pictures."""
        return self._labels

    def identity(self) -> Identity:
        """Number of pictures per class, and a fingerprint of their names and sizes; no file is read."""
        root, sums = os.fspath(self._root), [hashlib.blake2b(digest_size=8) for _ in self.class_names]
        for name, label in zip(self._files, self._labels.tolist(), strict=True):
            sums[label].update(f"{name}\0{_size(os.path.join(root, name))}\0".encode("utf-8", "surrogateescape"))
        counts = np.bincount(self._labels, minlength=len(sums)).tolist()
        return {name: (counts[i], sums[i].hexdigest()) for i, name in enumerate(self.class_names)}


def _classes(root: Path, aside: Aside) -> dict[str, list[str]]:
    """Class name -> names of its pictures, both in alphabetical order; no class is empty."""
    top, files = entries(root, aside), {}
    for name in top.pictures:
        aside.add(_BESIDE, root / name)
    if not top.folders:
        raise InputError(f"{root}: has no class folders, expected a sub-folder of pictures per class")
    for name in top.folders:
        if has_control(name):
            raise InputError(f"{root}: class folder '{printable(name)}' has a control character in its name; rename it")
        held = entries(root / name, aside)
        if not held.pictures:
            raise _no_pictures(root, name, top.folders, held.folders)
        count_nested(root / name, held.folders, aside)
        files[name] = held.pictures
    return files


def _no_pictures(root: Path, name: str, names: list[str], inside: list[str]) -> InputError:
    """The error for a class without pictures; folders of splits under other names are the commonest cause."""
    if inside and name.casefold() in _LIKE_SPLITS:
        splits = " and ".join(f"'{each}'" for each in names if each.casefold() in _LIKE_SPLITS)
        return InputError(
            f"{root}: {splits} would be classes here, and hold folders alone; splits must be called train and val (or "
            f"validation): rename them, or give {root / name}, of which a share is then used to validate"
        )
    nested = ", only folders: pictures must lie directly in it" if inside else "; add some"
    return InputError(
        f"{root / name}: class '{name}' holds no picture{nested}, or remove the folder (read are {' '.join(SUFFIXES)})"
    )


def _existing_split(root: Path, split: str, names: list[str], aside: Aside) -> tuple[Path, dict[str, list[str]]]:
    """The folder and the pictures of a split that the user made; the classes are those of `train`."""
    if len(names) > 1:
        raise InputError(f"{root}: has both {' and '.join(names)}, keep the one to validate with")
    training = _classes(root / "train", aside if split == "train" else Aside(root))
    if split == "train":
        return root / "train", training
    validation = _classes(root / names[0], aside)
    if unknown := sorted(set(validation) - set(training)):
        raise InputError(f"{root / names[0]}: class '{unknown[0]}' has no folder in {root / 'train'}")
    return root / names[0], {name: validation.get(name, []) for name in training}


def _hashed_split(root: Path, split: str, share: float, seed: int, aside: Aside) -> dict[str, list[str]]:
    chosen = {}
    for name, found in _classes(root, aside).items():
        if len(found) < 2:
            raise InputError(
                f"{root / name}: class '{name}' has one picture, which cannot be split into training and validation; "
                "add another"
            )
        place = {file: _place(name, file, seed) for file in found}
        ordered = sorted(found, key=place.__getitem__)
        held_out = sum(place[file] < share for file in found)
        held_out = set(ordered[: min(max(held_out, 1), len(found) - 1)])
        chosen[name] = [file for file in found if (file in held_out) == (split == "validation")]
    return chosen


def _place(name: str, file: str, seed: int) -> float:
    """A hash of a picture's class and name, as a number between 0 and 1."""
    digest = hashlib.blake2b(f"{seed}/{name}/{file}".encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _size(file: str) -> int:
    try:
        return os.stat(file).st_size
    except OSError:  # a link to nowhere counts as a picture that cannot be read
        return -1


def _is_readable(file: Path) -> bool:
    try:
        read_image(file)
    except InputError:
        return False
    return True
