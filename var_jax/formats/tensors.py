"""Reads and writes a file of tensors in whichever format it is, and flattens nested state dicts."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from var_jax.errors import InputError
from var_jax.formats.mapped import map_file
from var_jax.formats.safetensors_file import read_safetensors, write_safetensors
from var_jax.formats.small_files import AGAIN, OBJECT, read_json, require_fields
from var_jax.formats.torch_file import PICKLE_START, ZIP_START, read_torch_file, write_torch_file

# Real training checkpoints nest about five deep and hold some ten thousand values; a hostile file can repeat one dict
# inside another without end, or one long name before many.
_MOST_LEVELS = 32
_MOST_VALUES = 200_000
_LONGEST_NAME = 1000
_SHARD = re.compile(r"-(\d{1,6})-of-(\d{1,6})\.")  # in the name of one of several files


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a safetensors file or a PyTorch file of either format, recognised by content and not by suffix.

    Returns:
      The dict that the file holds: flat from safetensors, perhaps nested from PyTorch.

    Raises:
      InputError: if the file is missing, damaged, of another format, or holds something else than a dict.
    """
    head = map_file(path)[:9]
    # A safetensors file starts with the 8-byte length of its header, and the header with a brace.
    if head[8:] == b"{":
        return read_safetensors(path)
    if not head.startswith((ZIP_START, PICKLE_START)):
        raise InputError(f"{path}: not a file of tensors; expected safetensors, or a .pth file written by torch.save")
    tree = read_torch_file(path)
    if not isinstance(tree, dict):
        raise InputError(f"{path}: holds a {type(tree).__name__}, not a dict of tensors; save a state dict instead")
    return tree


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads a file's tensors by their dotted names; those that a training checkpoint nests are named by their path.

    A model in several files is read from its index (`*.index.json`), or from the folder that holds the files.

    Raises:
      InputError: naming the file, if it is missing, damaged, refused, one of several or names two tensors alike.
    """
    if os.path.isdir(path):
        path = _index_in(Path(path))
    if os.fspath(path).endswith(".index.json"):
        return _read_shards(Path(path))
    if (shard := _SHARD.search(os.path.basename(path))) and int(shard[2]) > 1:
        raise InputError(f"{path}: is part {int(shard[1])} of {int(shard[2])} of a model; give the folder of all parts")
    return _read_one(path)


def _read_one(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    tree = read_tensors(path)
    try:
        return flatten_state_dict(tree)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _index_in(folder: Path) -> Path:
    """The one index in a folder."""
    found = sorted(folder.glob("*.index.json"))
    if len(found) != 1:
        raise InputError(
            f"{folder}: expected a file, but this is a folder with {len(found)} files *.index.json; give the path of "
            "the file itself, or a folder with one index of a model in several files"
        )
    return found[0]


def _read_shards(index: Path) -> dict[str, np.ndarray]:
    """The tensors of a model in several files, which the index names."""
    content = read_json(index, "the index of a model in several files")
    require_fields(content, index, {"weight_map": OBJECT})
    places = content["weight_map"]
    if not all(type(name) is str and name == os.path.basename(name)[:255] for name in places.values()):
        raise InputError(f"{index}: 'weight_map' holds something else than names of files beside it; {AGAIN}")
    tensors: dict[str, np.ndarray] = {}
    for name in sorted(set(places.values())):
        part = _read_one(index.parent / name)
        if set(part) != {key for key, place in places.items() if place == name}:
            raise InputError(f"{index.parent / name}: holds other tensors than {index.name} says; {AGAIN}")
        tensors |= part
    return tensors


def flatten_state_dict(tree: Mapping[Any, Any]) -> dict[str, np.ndarray]:
    """Arrays of nested dicts by their dotted names, in order; leaves that are no arrays are left out.

    Raises:
      InputError: if two arrays get the same name, or names or nesting go beyond any model's.
    """
    if not isinstance(tree, Mapping):
        raise InputError(f"state dict: expected a dict of tensors, got {type(tree).__name__}; pick the weights' entry")
    flat: dict[str, np.ndarray] = {}
    for count, (name, value) in enumerate(_leaves(tree)):
        if count >= _MOST_VALUES:
            raise InputError(f"state dict: holds more than {_MOST_VALUES} values; expected the weights of one model")
        if not isinstance(value, np.ndarray):
            continue
        if name in flat:
            raise InputError(f"state dict: two tensors are called {name!r}; expected one of each name, so rename one")
        flat[name] = value
    return flat


def _leaves(tree: Mapping[Any, Any], prefix: str = "", level: int = 0) -> Iterator[tuple[str, Any]]:
    if level > _MOST_LEVELS:
        raise InputError(f"state dict: dicts nest more than {_MOST_LEVELS} deep; expected the weights of one model")
    for key, value in tree.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if len(name) > _LONGEST_NAME:
            raise InputError(f"state dict: a name has more than {_LONGEST_NAME} characters; expected a model's weights")
        if isinstance(value, Mapping):
            yield name, None  # counted too, or empty dicts could repeat for ever
            yield from _leaves(value, name, level + 1)
        else:
            yield name, value


def write_tensors(path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Writes tensors in the format that the suffix names: .safetensors, or .pth or .pt for PyTorch.

    PyTorch's format has no room for metadata, so it is left out there.

    Raises:
      InputError: for another suffix, a type the format cannot hold, or a place that cannot be written.
    """
    suffix = os.path.splitext(path)[1].lower()
    if suffix == ".safetensors":
        write_safetensors(path, tensors, metadata)
    elif suffix in (".pth", ".pt"):
        write_torch_file(path, tensors)
    else:
        raise InputError(f"{path}: the suffix '{suffix}' names no format; use .safetensors, .pth or .pt")
