"""The constants of a frozen graph, and files that are none or are cut short."""

from __future__ import annotations

import numpy as np
import pytest

from tests.pretrained.drawn_inception import field, graph
from var_jax.errors import InputError
from var_jax.formats.frozen_graph import read_constants


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {"packed": (3, 4), "single": (5,), "long/kernel": (3, 5, 7), "scalar": (), "none": (0, 2)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def test_constants(tmp_path):
    (tmp_path / "a.pb").write_bytes(graph(arrays()))
    found = read_constants(tmp_path / "a.pb")
    assert list(found) == list(arrays())
    for name, array in arrays().items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], array)


def test_one_number_fills_a_shape(tmp_path):
    tensor = field(1, 1) + field(2, field(2, field(1, 6))) + field(5, np.float32(1.5).tobytes())
    node = field(1, b"ones") + field(2, b"Const") + field(5, field(1, b"value") + field(2, field(8, tensor)))
    (tmp_path / "a.pb").write_bytes(field(1, node))
    np.testing.assert_array_equal(read_constants(tmp_path / "a.pb")["ones"], np.full(6, 1.5, np.float32))


def test_other_nodes_and_types_are_left_out(tmp_path):
    integers = field(8, field(1, 3) + field(2, field(2, field(1, 2))) + field(4, bytes(8)))
    nodes = [field(1, b"x") + field(2, b"Conv2D") + field(3, b"input") + field(5, field(1, b"T") + field(2, b""))]
    nodes.append(field(1, b"sizes") + field(2, b"Const") + field(5, field(1, b"value") + field(2, integers)))
    (tmp_path / "a.pb").write_bytes(graph(arrays(), [field(1, node) for node in nodes]))
    assert list(read_constants(tmp_path / "a.pb")) == list(arrays())


def test_damage_is_one_sentence(tmp_path):
    """Cut at every place, a file reads as the nodes before or is refused, and never as other numbers."""
    whole, path = graph(arrays()), tmp_path / "a.pb"
    refused = 0
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        try:
            found = read_constants(path)
        except InputError as error:
            assert str(error).startswith(f"{path}: is no whole frozen TensorFlow graph (")
            refused += 1
        else:
            assert all(np.array_equal(array, arrays()[name]) for name, array in found.items())
    assert refused > 0.9 * len(whole)
    for content in (b"\x89PNG\r\n\x1a\n rubbish", b"\x0b\x00", b"\x0a\x05\x28\x07hello", b"\xff" * 20):
        path.write_bytes(content)
        with pytest.raises(InputError, match="is no whole frozen TensorFlow graph"):
            read_constants(path)


def test_wrong_sizes_are_refused(tmp_path):
    for tensor, problem in (
        (field(1, 1) + field(2, field(2, field(1, 3))) + field(4, bytes(8)), r"2 numbers for the shape \(3,\)"),
        (field(1, 1) + field(2, field(2, field(1, 2**40))) + field(4, bytes(8)), "a side that cannot be"),
        (field(1, 1) + field(2, 7), "a number stands where a message belongs"),
    ):
        node = field(1, b"x") + field(2, b"Const") + field(5, field(1, b"value") + field(2, field(8, tensor)))
        (tmp_path / "a.pb").write_bytes(field(1, node))
        with pytest.raises(InputError, match=problem):
            read_constants(tmp_path / "a.pb")
