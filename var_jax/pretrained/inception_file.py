"""Finds and reads the weights of the 2015 Inception network; runs nothing that a file holds.

Understood are `pt_inception-2015-12-05-6726825d.pth` of pytorch-fid (torch-fidelity's
`weights-inception-2015-12-05-6726825d.pth` is the same file) and the frozen TensorFlow graph
`classify_image_graph_def.pb` that both were made from and that the published evaluator runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from var_jax.errors import InputError
from var_jax.formats.checksums import sha256
from var_jax.formats.frozen_graph import read_constants
from var_jax.formats.tensors import flatten_state_dict, read_tensors
from var_jax.models.parameters import Params
from var_jax.pretrained.inception import BLOCKS, OUTPUTS, POOL, STEM, Conv, Pool, layers

PUBLISHED_START = "6726825d"  # of the .pth file's SHA-256; its name says so, too
GRAPH_FILE = "classify_image_graph_def.pb"
NAMES = (f"pt_inception-2015-12-05-{PUBLISHED_START}.pth", f"weights-inception-2015-12-05-{PUBLISHED_START}.pth")
CACHE_VARIABLE = "VAR_JAX_CACHE"
_VECTORS = {"scale": "weight", "bias": "bias", "mean": "running_mean", "variance": "running_var"}
_GRAPH_VECTORS = {"scale": "gamma", "bias": "beta", "mean": "moving_mean", "variance": "moving_variance"}
_SOURCE = (
    f"{NAMES[0]} (release fid_weights of github.com/mseitzer/pytorch-fid) or {GRAPH_FILE} (in inception-2015-12-05.tgz "
    "of download.tensorflow.org/models/image/imagenet)"
)


class Weights(NamedTuple):
    """The network's weights and their origin.

    Attributes:
      params: parameters of `Inception`, float32 numpy arrays.
      file: path of the file.
      sha256: SHA-256 of the file.
      published: True for the published .pth file by its checksum, False for another one in that format, None for a
        frozen graph: of that no checksum was published, so names and shapes are all that is checked.
    """

    params: Params
    file: str
    sha256: str
    published: bool | None


def cache_folder() -> Path:
    """The folder searched for weights: $VAR_JAX_CACHE, else var_jax in the user's cache folder."""
    if folder := os.environ.get(CACHE_VARIABLE):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "var_jax"


def read_inception(path: str | os.PathLike[str] | None = None) -> Weights:
    """The weights in a file, or in the cache folder under one of the published names.

    Raises:
      InputError: if there is no file, it does not match its name, lacks a tensor, or has one of another shape.
    """
    file = _find(path)
    digest = sha256(file)
    if file.suffix == ".pb":
        return Weights(_from_graph(file), str(file), digest, None)
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
    tensors = flatten_state_dict(read_tensors(file))
    params: Params = {}
    for name, shape in layers().items():
        kernel = _tensor(file, tensors, f"{name}.conv.weight", (shape[3], shape[2], *shape[:2]))
        params[name] = {"kernel": kernel.transpose(2, 3, 1, 0)}
        for ours, theirs in _VECTORS.items():
            params[name][ours] = _tensor(file, tensors, f"{name}.bn.{theirs}", shape[3:])
    weight = _tensor(file, tensors, "fc.weight", (OUTPUTS, POOL))
    params["fc"] = {"kernel": weight.T, "bias": _tensor(file, tensors, "fc.bias", (OUTPUTS,))}
    return _float32(params)


def _from_graph(file: Path) -> Params:
    constants = read_constants(file)
    shapes, params = layers(), {}
    for name, scope in graph_scopes().items():
        shape = shapes[name]
        params[name] = {"kernel": _tensor(file, constants, f"{scope}/conv2d_params", shape)}
        for ours, theirs in _GRAPH_VECTORS.items():
            params[name][ours] = _tensor(file, constants, f"{scope}/batchnorm/{theirs}", shape[3:])
    params["fc"] = {
        "kernel": _tensor(file, constants, "softmax/weights", (POOL, OUTPUTS)),
        "bias": _tensor(file, constants, "softmax/biases", (OUTPUTS,)),
    }
    return _float32(params)


def graph_scopes() -> dict[str, str]:
    """Each layer's scope in the frozen graph.

    The graph numbers what it makes: conv, conv_1 ... within a scope; a branch of one layer at the front lies in the
    block's scope, every other branch is a tower; what a fork makes lies in a scope `mixed` of its own.
    """
    convs = [step.name for step in STEM if isinstance(step, Conv)]
    scopes = {name: _numbered("conv", index) for index, name in enumerate(convs)}
    for index, (name, branches) in enumerate(BLOCKS.items()):
        block, towers = _numbered("mixed", index), 0
        for branch in branches:
            steps = [step for step in branch if not isinstance(step, Pool)]
            if not steps:
                continue
            if branch is branches[0] and len(steps) == 1:
                scope = block
            else:
                scope, towers = f"{block}/{_numbered('tower', towers)}", towers + 1
            scopes |= {f"{name}.{layer}": place for layer, place in _places(steps, scope)}
    return scopes


def _places(steps: list, scope: str) -> Iterator[tuple[str, str]]:
    for index, step in enumerate(steps):
        if isinstance(step, Conv):
            yield step.name, f"{scope}/{_numbered('conv', index)}"
        else:
            yield from ((conv.name, f"{scope}/mixed/{_numbered('conv', n)}") for n, conv in enumerate(step))


def _numbered(name: str, index: int) -> str:
    return f"{name}_{index}" if index else name


def _tensor(file: Path, tensors: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name not in tensors:
        raise InputError(f"{file}: lacks {name} of the 2015 Inception network; get {_SOURCE}")
    if tensors[name].shape != shape:
        raise InputError(f"{file}: {name} has the shape {tensors[name].shape}, expected {shape}; get {_SOURCE}")
    return tensors[name]


def _float32(params: Params) -> Params:
    return jax.tree.map(lambda array: np.ascontiguousarray(array, np.float32), params)
