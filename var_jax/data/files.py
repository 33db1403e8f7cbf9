"""Which files of a folder are pictures: one rule for training, tokenizing and evaluating.

A picture is a file whose name has one of `SUFFIXES`, in any case, and whose content `var_jax.data.images` reads. Hidden
files and folders, and those that systems leave behind, are ignored. Links are followed; one that leads nowhere stands
for a picture that cannot be read. Everything else is counted, so that nothing is left aside in silence.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from var_jax.data.images import FORMATS
from var_jax.errors import InputError, printable

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
    *[".avif"] * ("AVIF" in FORMATS),
)
# Folded names that systems leave in folders, hidden or not.
_LITTER = {
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
    *("__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found"),
}
_TEXTS = {".txt", ".md", ".json", ".jsonl", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".html", ".log"}  # not counted
_SUFFIXES_SHOWN = 6

NESTED = "not taken, pictures in folders inside a folder of pictures"
_DEAD = "cannot be read, links that lead to no file"
_NO_FILE = "not taken, neither files nor folders"
_OTHER = "not taken, files of other kinds"
_CLOSED = "not looked into, folders that cannot be listed"
_FAR = "not looked into, links to folders inside a folder of pictures or a linked one"
_LONGEST = 160  # characters of a path that is an example


class Entries(NamedTuple):
    """Names in one folder, in alphabetical order.

    Attributes:
      pictures: files that count as pictures, and links with a picture's name that lead nowhere.
      folders: sub-folders.
    """

    pictures: list[str]
    folders: list[str]


class Aside:
    """Counts what a data set's folders hold and nobody reads, by reason, with the first of each as an example."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        """Names will be relative to `root`."""
        self._root = os.fspath(root)
        self._found: dict[str, tuple[int, str]] = {}
        self._suffixes: Counter[str] = Counter()

    def add(self, reason: str, path: str | os.PathLike[str]) -> None:
        """Counts one file."""
        count, first = self._found.get(reason, (0, os.fspath(path)))
        self._found[reason] = count + 1, first

    def add_other(self, name: str) -> None:
        """Counts a file of another kind, unless it is a text."""
        suffix = PurePath(name).suffix.lower()
        if suffix not in _TEXTS:
            self._suffixes[suffix or "without a suffix"] += 1

    def lines(self) -> tuple[str, ...]:
        """A line for each reason."""
        lines = []
        for reason, (count, first) in self._found.items():
            shown, more = os.path.relpath(first, self._root), " and others" * (count > 1)
            shown = f"...{shown[-_LONGEST:]}" if len(shown) > _LONGEST else shown
            lines.append(f"{self._root}: {reason}: {count} ({shown}{more})")
        if self._suffixes:
            common = self._suffixes.most_common(_SUFFIXES_SHOWN)
            shown = ", ".join(f"{count} {suffix[:20]}" for suffix, count in common)
            more = ", ..." * (len(self._suffixes) > len(common))
            lines.append(f"{self._root}: {_OTHER}: {self._suffixes.total()} ({shown}{more})")
        return tuple(map(printable, lines))


def entries(folder: str | os.PathLike[str], aside: Aside) -> Entries:
    """Lists one folder; what is neither a picture nor a folder goes to `aside`.

    Raises:
      InputError: if the folder cannot be listed.
    """
    found = Entries([], [])
    try:
        with os.scandir(folder) as listed:
            for entry in listed:
                if not entry.name.startswith(".") and entry.name.casefold() not in _LITTER:
                    _sort_out(entry, found, aside)
    except OSError as error:
        raise _closed(folder, error) from None
    found.pictures.sort()
    found.folders.sort()
    return found


def _sort_out(entry: os.DirEntry[str], found: Entries, aside: Aside) -> None:
    """Puts an entry of a folder where it belongs."""
    try:
        is_folder, is_file = entry.is_dir(), entry.is_file()
    except OSError:  # a link that leads to itself, or through a folder that nobody may enter
        is_folder = is_file = False
    dead = not (is_folder or is_file) and entry.is_symlink()
    if is_folder:
        found.folders.append(entry.name)
    elif dead or is_file:
        if dead:
            aside.add(_DEAD, entry.path)
        if entry.name.lower().endswith(SUFFIXES):
            found.pictures.append(entry.name)
        elif is_file:
            aside.add_other(entry.name)
    else:
        aside.add(_NO_FILE, entry.path)


def find_pictures(root: str | os.PathLike[str], aside: Aside) -> list[Path]:
    """All pictures in a folder and the folders in it, in the order of their paths, relative to it.

    As in training, folders inside one that holds pictures are not looked into; only the root may hold both.

    Raises:
      InputError: if a folder cannot be listed.
    """
    top, own = entries(root, aside), _identity(root)
    found = [Path(name) for name in top.pictures]
    for name in top.folders:
        waiting, seen = [(Path(root, name), False)], {own}
        while waiting:
            folder, linked = waiting.pop()
            if linked and folder.is_symlink():  # or one link to the root of a disk leads everywhere
                aside.add(_FAR, folder)
                continue
            if (identity := _identity(folder)) in seen:  # a link may lead back
                continue
            seen.add(identity)
            held = entries(folder, aside)
            found += [(folder / picture).relative_to(root) for picture in held.pictures]
            if held.pictures:
                count_nested(folder, held.folders, aside)
            else:
                waiting += [(folder / below, linked or folder.is_symlink()) for below in held.folders]
    return sorted(found)


def count_nested(folder: str | os.PathLike[str], names: Sequence[str], aside: Aside) -> None:
    """Counts the pictures in the folders `names`, and below them, inside a folder of pictures."""
    waiting = [os.path.join(folder, name) for name in reversed(names)]
    while waiting:
        below = waiting.pop()
        if os.path.islink(below):
            aside.add(_FAR, below)
            continue
        try:
            held = entries(below, Aside(below))
        except InputError:
            aside.add(_CLOSED, below)
            continue
        for name in held.pictures:
            aside.add(NESTED, os.path.join(below, name))
        waiting += [os.path.join(below, name) for name in reversed(held.folders)]


def _identity(folder: str | os.PathLike[str]) -> tuple[int, int]:
    """Device and number of a folder, by whatever path it was reached."""
    try:
        status = os.stat(folder)
    except OSError as error:
        raise _closed(folder, error) from None
    return status.st_dev, status.st_ino


def _closed(folder: str | os.PathLike[str], error: OSError) -> InputError:
    return InputError(f"{folder}: the folder cannot be listed ({error.strerror}); see who may read it")
