"""safetensors files: every type both ways, metadata, and damage that the library reports in its own words."""

from __future__ import annotations

import json
import stat

import ml_dtypes
import numpy as np
import pytest

from tests.formats import samples
from var_jax.errors import InputError
from var_jax.formats.safetensors_file import read_metadata, read_safetensors, write_safetensors

SMALL = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(3, ml_dtypes.bfloat16)}


def raw(header: dict, data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_round_trip(tmp_path):
    written = samples.tensors() | {name: np.arange(3, dtype=name) for name in ("uint16", "uint32", "uint64")}
    write_safetensors(tmp_path / "a.safetensors", written, {"format": "pt", "é": "1 2"})
    samples.assert_same(read_safetensors(str(tmp_path / "a.safetensors")), written)
    assert read_metadata(tmp_path / "a.safetensors") == {"format": "pt", "é": "1 2"}


@pytest.mark.parametrize("metadata", [{}, {"a": "b"}])
def test_no_tensor_at_all(tmp_path, metadata):
    write_safetensors(tmp_path / "a.safetensors", {}, metadata)
    assert read_safetensors(tmp_path / "a.safetensors") == {}
    assert read_metadata(tmp_path / "a.safetensors") == metadata


def test_others_may_read_what_they_could_read_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    write_safetensors(tmp_path / "a.safetensors", SMALL, {})
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "a.safetensors")]
    assert modes[0] == modes[1]


def test_beside_the_library_for_torch(tmp_path):
    pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    write_safetensors(tmp_path / "a.safetensors", SMALL, {})
    theirs = load_file(tmp_path / "a.safetensors")
    assert theirs["b"].tolist() == [1, 1, 1]
    assert str(theirs["b"].dtype) == "torch.bfloat16"
    assert theirs["a.weight"].tolist() == [[0, 1, 2], [3, 4, 5]]
    save_file(theirs, tmp_path / "b.safetensors", {"format": "pt"})
    samples.assert_same(read_safetensors(tmp_path / "b.safetensors"), SMALL)
    assert read_metadata(tmp_path / "b.safetensors") == {"format": "pt"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x", np.array(["text"])),
        ("x", np.array([None])),
        ("x", np.ones(2, np.complex128)),
        ("x", np.ones(2, ml_dtypes.float8_e5m2)),
        ("__metadata__", np.ones(2)),
        (3, np.ones(2)),
    ],
)
def test_what_the_format_cannot_hold(tmp_path, name, value):
    with pytest.raises(InputError, match=f"a.safetensors: tensor {name!r} of type .* cannot be written"):
        write_safetensors(tmp_path / "a.safetensors", {name: value}, {})
    assert samples.only_files_in(tmp_path) == []


def test_a_write_that_fails_keeps_the_old_file(tmp_path, file_size_limit):
    write_safetensors(tmp_path / "a.safetensors", SMALL, {})
    with pytest.raises(InputError, match=r"a\.safetensors: cannot be written"):
        write_safetensors(tmp_path / "a.safetensors", {"big": np.zeros(file_size_limit)}, {})
    samples.assert_same(read_safetensors(tmp_path / "a.safetensors"), SMALL)
    assert samples.only_files_in(tmp_path) == ["a.safetensors"]


def test_a_parent_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"a\.safetensors: cannot be written"):
        write_safetensors(tmp_path / "file" / "a.safetensors", SMALL, {})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"text", "not a whole safetensors file"),
        (b"some longer text that is no header", "not a whole safetensors file"),
        (raw({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(7)), "not a whole safetensors file"),
        (raw({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(9)), "not a whole safetensors file"),
        (raw({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 8]}}, bytes(8)), "not a whole safetensors file"),
        (raw({"a": {"dtype": "X32", "shape": [2], "data_offsets": [0, 8]}}, bytes(8)), "not a whole safetensors file"),
        (raw({"a": {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}}, bytes(8)), "type that numpy lacks"),
    ],
)
def test_foreign_or_damaged(tmp_path, content, message):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=f"a.safetensors: .*{message}"):
        read_safetensors(tmp_path / "a.safetensors")
    if "numpy" not in message:
        with pytest.raises(InputError, match=message):
            read_metadata(tmp_path / "a.safetensors")


def test_wrong_paths(tmp_path):
    for read in (read_safetensors, read_metadata):
        with pytest.raises(InputError, match="missing.safetensors: no such file"):
            read(tmp_path / "missing.safetensors")
        with pytest.raises(InputError, match="a folder"):
            read(tmp_path)


def test_random_damage_never_escapes(tmp_path):
    write_safetensors(tmp_path / "a.safetensors", SMALL, {"format": "pt"})
    content = (tmp_path / "a.safetensors").read_bytes()
    samples.assert_only_input_errors(read_safetensors, content, tmp_path, count=300, seed=4)
    samples.assert_only_input_errors(read_metadata, content, tmp_path, count=100, seed=5)
