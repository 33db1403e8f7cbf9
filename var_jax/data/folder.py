"""A data set from a folder of pictures: one sub-folder per class, class ids in alphabetical order of the names."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from var_jax.data.images import read_image
from var_jax.data.sources import IMAGES, Identity, check_share
from var_jax.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
VALIDATION_NAMES = ("val", "validation")


class Folder:
    """One split of the pictures under `path`/CLASS/.

    If `path` has a sub-folder `train` and one called `val` or `validation`, those are the splits. Otherwise a
    picture belongs to the validation split if a hash of its class, its name and `seed` falls below
    `validation_share`, so that pictures added later move no others. A class with all its pictures in one split gives
    one of them to the other split. Hidden files and files without a picture's suffix are ignored.

    Args:
      split: "train" or "validation".
      path: the folder.
      validation_share: between 0 and 1; has no effect on a folder that is split already.
      seed: another seed splits differently.

    Raises:
      InputError: for a missing folder, one without class folders, a class without pictures, a class with one picture
        that would have to be split, or if none of the pictures can be read.
    """

    holds = IMAGES

    def __init__(self, split: str, path: str | os.PathLike[str], validation_share: float = 0.05, seed: int = 0) -> None:
        check_share(validation_share)
        root = Path(path)
        if not root.exists():
            raise InputError(f"{path}: no such folder, expected one with a sub-folder of pictures per class")
        if not root.is_dir():
            raise InputError(f"{path}: is a file, expected a folder with a sub-folder of pictures per class")
        names = _sub_folders(root)
        validation = [name for name in VALIDATION_NAMES if name in names]
        if "train" in names and validation:
            self._root, files = _existing_split(root, split, validation)
        else:
            self._root, files = root, _hashed_split(root, split, validation_share, seed)
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
            size = os.stat(os.path.join(root, name)).st_size
            sums[label].update(f"{name}\0{size}\0".encode("utf-8", "surrogateescape"))
        counts = np.bincount(self._labels, minlength=len(sums)).tolist()
        return {name: (counts[i], sums[i].hexdigest()) for i, name in enumerate(self.class_names)}


def _sub_folders(root: Path) -> list[str]:
    with os.scandir(root) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _pictures(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name.lower().endswith(SUFFIXES) and entry.is_file()]
    return sorted(name for name in names if not name.startswith("."))


def _classes(root: Path) -> dict[str, list[str]]:
    """Class name -> names of its pictures, both in alphabetical order; no class is empty."""
    names = _sub_folders(root)
    if not names:
        raise InputError(f"{root}: has no class folders, expected a sub-folder of pictures per class")
    files = {name: _pictures(root / name) for name in names}
    for name, found in files.items():
        if not found:
            nested = ", only folders: pictures must lie directly in it" if _sub_folders(root / name) else ""
            raise InputError(
                f"{root / name}: class '{name}' holds no picture{nested or '; add some'}, or remove the folder "
                f"(read are {' '.join(SUFFIXES)})"
            )
    return files


def _existing_split(root: Path, split: str, names: list[str]) -> tuple[Path, dict[str, list[str]]]:
    """The folder and the pictures of a split that the user made; the classes are those of `train`."""
    if len(names) > 1:
        raise InputError(f"{root}: has both {' and '.join(names)}, keep the one to validate with")
    training = _classes(root / "train")
    if split == "train":
        return root / "train", training
    validation = _classes(root / names[0])
    if unknown := sorted(set(validation) - set(training)):
        raise InputError(f"{root / names[0]}: class '{unknown[0]}' has no folder in {root / 'train'}")
    return root / names[0], {name: validation.get(name, []) for name in training}


def _hashed_split(root: Path, split: str, share: float, seed: int) -> dict[str, list[str]]:
    chosen = {}
    for name, found in _classes(root).items():
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


def _is_readable(file: Path) -> bool:
    try:
        read_image(file)
    except InputError:
        return False
    return True
