"""Finds and reads the weights of the 2015 Inception network; runs nothing that a file holds.

The file is `pt_inception-2015-12-05-6726825d.pth` of pytorch-fid; torch-fidelity's
`weights-inception-2015-12-05-6726825d.pth` is the same. Both were made from the frozen TensorFlow graph
`classify_image_graph_def.pb` that the published evaluator runs, which is refused with the name of the `.pth`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from var_jax.errors import InputError
from var_jax.formats.checksums import sha256
from var_jax.models.parameters import Params
from var_jax.pretrained.files import published_tensors
from var_jax.pretrained.inception import OUTPUTS, POOL, layers

PUBLISHED_START = "6726825d"  # of the .pth file's SHA-256; its name says so, too
GRAPH_FILE = "classify_image_graph_def.pb"
NAMES = (f"pt_inception-2015-12-05-{PUBLISHED_START}.pth", f"weights-inception-2015-12-05-{PUBLISHED_START}.pth")
CACHE_VARIABLE = "VAR_JAX_CACHE"
_VECTORS = {"scale": "weight", "bias": "bias", "mean": "running_mean", "variance": "running_var"}
_SOURCE = f"{NAMES[0]} (release fid_weights of github.com/mseitzer/pytorch-fid)"


class Weights(NamedTuple):
    """The network's weights and their origin.

    Attributes:
      params: parameters of `Inception`, float32 numpy arrays.
      file: path of the file.
      sha256: SHA-256 of the file.
      published: whether it is the published file, by its checksum.
    """

    params: Params
    file: str
    sha256: str
    published: bool


def cache_folder() -> Path:
    """The folder searched for weights: $VAR_JAX_CACHE, else var_jax in the user's cache folder."""
    if folder := os.environ.get(CACHE_VARIABLE):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "var_jax"


def read_inception(path: str | os.PathLike[str] | None = None) -> Weights:
    """Reads the weights from a file, or from the cache folder under one of the published names.

    Raises:
      InputError: if there is no file, it does not match its name, lacks a tensor, or has one of another shape.
    """
    file = _find(path)
    if file.suffix == ".pb":
        raise InputError(f"{file}: TensorFlow graphs are not read; get the same network's {_SOURCE}")
    digest = sha256(file)
    published = digest.startswith(PUBLISHED_START)
    if PUBLISHED_START in file.name and not published:
        raise InputError(
            f"{file}: its SHA-256 starts with {digest[:8]}, as its name says it should with "
            f"{PUBLISHED_START}; it is damaged or another file, get {_SOURCE}"
        )
    return Weights(_from_torch(file), str(file), digest, published)


def _find(path: str | os.PathLike[str] | None) -> Path:
    if path is not None:
        if not os.path.isfile(path):
            raise InputError(f"weights of Inception: no file '{path}'; get {_SOURCE} and give its path")
        return Path(path)
    folder = cache_folder()
    for name in (*NAMES, GRAPH_FILE):
        if (folder / name).is_file():
            return folder / name
    raise InputError(
        f"weights of Inception: none in {folder}; get {_SOURCE} and put it there, or give its path (--inception FILE)"
    )


def _from_torch(file: Path) -> Params:
    tensor = published_tensors(file, "Inception", "the 2015 Inception network", f"get {_SOURCE}")
    params: Params = {}
    for name, shape in layers().items():
        kernel = tensor(f"{name}.conv.weight", (shape[3], shape[2], *shape[:2])).transpose(2, 3, 1, 0)
        vectors = {ours: tensor(f"{name}.bn.{theirs}", shape[3:]) for ours, theirs in _VECTORS.items()}
        params[name] = {"kernel": kernel, **vectors}
    params["fc"] = {"kernel": tensor("fc.weight", (OUTPUTS, POOL)).T, "bias": tensor("fc.bias", (OUTPUTS,))}
    return jax.tree.map(lambda array: np.ascontiguousarray(array, np.float32), params)
