"""Formats told apart by content, written by suffix, and nested state dicts made flat."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest

from tests.formats import samples
from var_jax.errors import InputError
from var_jax.formats.safetensors_file import read_metadata, write_safetensors
from var_jax.formats.tensors import flatten_state_dict, read_tensors, write_tensors
from var_jax.formats.torch_file import write_torch_file

SMALL = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(3, np.float16)}
ONE = np.ones(1)


def test_content_decides_and_not_the_suffix(tmp_path):
    write_torch_file(tmp_path / "a.safetensors", SMALL)
    write_safetensors(tmp_path / "b.pth", SMALL, {"format": "pt"})
    (tmp_path / "c.bin").write_bytes(samples.legacy_bytes(SMALL))
    for name in ("a.safetensors", "b.pth", "c.bin"):
        samples.assert_same(read_tensors(tmp_path / name), SMALL)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"plain text, nothing else", "not a file of tensors"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "not a file of tensors"),
        (b"\x10\0\0\0\0\0\0\0{", "not a whole safetensors file"),
        (b"PK\x03\x04" + bytes(40), "zip file is damaged"),
        (pickle.dumps([1, 2], 2), "PyTorch did not write it"),
    ],
)
def test_other_content(tmp_path, content, message):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(InputError, match=f"a.pth: .*{message}"):
        read_tensors(tmp_path / "a.pth")


def test_something_else_than_a_dict(tmp_path):
    head = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {}, [1, 2], []))
    (tmp_path / "a.pth").write_bytes(head)
    with pytest.raises(InputError, match="a.pth: holds a list, not a dict of tensors"):
        read_tensors(tmp_path / "a.pth")


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match="a.pth: no such file"):
        read_tensors(tmp_path / "a.pth")


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors", ".PTH"])
def test_the_suffix_decides_what_is_written(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write_tensors(path, SMALL, {"origin": "test"})
    samples.assert_same(read_tensors(path), SMALL)
    assert (path.read_bytes()[:2] == b"PK") == (suffix != ".safetensors")
    if suffix == ".safetensors":
        assert read_metadata(path) == {"origin": "test"}


@pytest.mark.parametrize("name", ["a", "a.npz", "a.pth.gz", ".pth"])
def test_another_suffix(tmp_path, name):
    with pytest.raises(InputError, match="names no format; use .safetensors, .pth or .pt"):
        write_tensors(tmp_path / name, SMALL, {})
    assert samples.only_files_in(tmp_path) == []


def test_flatten_joins_names_and_leaves_out_the_rest():
    tree = {"epoch": 3, "b": {"x": ONE, "deep": {"y": ONE, "note": "text"}}, "a": ONE, "list": [ONE], 0: {1: ONE}}
    assert list(flatten_state_dict(tree)) == ["b.x", "b.deep.y", "a", "0.1"]
    assert list(flatten_state_dict(tree)) == ["b.x", "b.deep.y", "a", "0.1"]
    assert flatten_state_dict(tree)["b.x"] is ONE


def test_flatten_refuses_what_has_no_flat_form():
    with pytest.raises(InputError, match=r"two tensors are called 'a\.b'"):
        flatten_state_dict({"a.b": ONE, "a": {"b": ONE}})
    assert list(flatten_state_dict({"a.b": ONE, "a": {"b": 3}})) == ["a.b"]
    with pytest.raises(InputError, match="expected a dict of tensors, got list"):
        flatten_state_dict([ONE])
    loop: dict = {"w": ONE}
    loop["again"] = loop
    with pytest.raises(InputError, match="nest more than 32 deep"):
        flatten_state_dict(loop)


def test_flatten_ends_on_dicts_that_repeat_one_another():
    tree: dict = {}
    for _ in range(30):
        tree = {"a": tree, "b": tree}  # a billion paths
    with pytest.raises(InputError, match="more than 200000 values"):
        flatten_state_dict(tree)


def test_importing_this_pulls_in_no_other_framework():
    code = "import sys, var_jax.formats.tensors; print(sorted({'torch', 'tensorflow'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
