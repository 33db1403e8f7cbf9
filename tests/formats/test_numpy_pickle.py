"""Pickles of numpy arrays: what numpy writes is read, and nothing that a file asks for is run."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest

from var_jax.errors import InputError
from var_jax.formats.numpy_pickle import read_numpy_pickle


@pytest.mark.parametrize("protocol", [3, 4])
def test_what_numpy_writes(tmp_path, protocol):
    shared = np.arange(6, dtype=np.float32).reshape(2, 3)
    tree = {
        "a": {"kernel": shared, "turned": np.asfortranarray(shared)},
        "b": {"again": shared, "big_endian": np.arange(3, dtype=">i4"), "none": np.zeros((0, 2), np.float64)},
        "byte": np.array([True, False]),
    }
    (tmp_path / "a.ckpt").write_bytes(pickle.dumps(tree, protocol=protocol))
    read = read_numpy_pickle(tmp_path / "a.ckpt")
    assert list(read) == ["a", "b", "byte"]
    for name, expected in [*tree["a"].items(), *tree["b"].items(), ("byte", tree["byte"])]:
        array = {**read["a"], **read["b"], "byte": read["byte"]}[name]
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected)
    assert not read["a"]["kernel"].flags.writeable


class Evil:
    """Makes a folder when it is unpickled by Python."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_code_is_refused_and_not_run(tmp_path):
    (tmp_path / "a.ckpt").write_bytes(pickle.dumps({"a": Evil(tmp_path / "made")}, protocol=4))
    with pytest.raises(InputError, match="asks for the Python object posix.mkdir, refused because it could run code"):
        read_numpy_pickle(tmp_path / "a.ckpt")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "value", [[np.zeros(2)], {"a": 3}, {3: np.zeros(2)}, {"a": np.array([{}], object)}, {"a": np.float32}], ids=repr
)
def test_other_content_is_refused(tmp_path, value):
    (tmp_path / "a.ckpt").write_bytes(pickle.dumps(value, protocol=4))
    with pytest.raises(InputError, match="a.ckpt: "):
        read_numpy_pickle(tmp_path / "a.ckpt")


def test_damage_is_said(tmp_path):
    content = pickle.dumps({"a": np.arange(9.0)}, protocol=4)
    for length in range(1, len(content) - 1, 7):
        (tmp_path / "a.ckpt").write_bytes(content[:length])
        with pytest.raises(InputError, match="a.ckpt: "):
            read_numpy_pickle(tmp_path / "a.ckpt")
