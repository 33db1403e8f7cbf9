"""Meshes over processes and slices: which rows of a batch are whose, and what goes over the slow network."""

from __future__ import annotations

import types

import jax
import numpy as np
import pytest

from var_jax.errors import InputError
from var_jax.parallel.mesh import AXES, _over_slices, batch_part


def device(number, process, slice_index=0):
    """As much of a device as a mesh asks for."""
    return types.SimpleNamespace(
        id=number, process_index=process, slice_index=slice_index, platform="cpu", device_kind="cpu"
    )


def mesh(processes, data, fsdp, tensor):
    """A mesh of devices whose processes are given in their order."""
    devices = np.array([device(number, process) for number, process in enumerate(processes)], object)
    shape = dict(zip(AXES, (data, fsdp, tensor), strict=True))
    return types.SimpleNamespace(devices=devices.reshape(data, fsdp, tensor), shape=shape)


@pytest.mark.parametrize(
    ("processes", "sizes", "parts"),
    [
        ([0, 0, 1, 1], (4, 1, 1), [(0, 2), (1, 2)]),
        ([0, 0, 1, 1], (1, 4, 1), [(0, 2), (1, 2)]),
        ([0, 0, 1, 1], (2, 1, 2), [(0, 2), (1, 2)]),
        ([0, 0, 1, 1], (1, 1, 4), [(0, 1), (0, 1)]),  # both hold the same rows
        ([0, 1, 0, 1], (4, 1, 1), [(0, 2), (1, 2)]),  # as the network of a TPU may have it
        ([1, 1, 0, 0], (4, 1, 1), [(1, 2), (0, 2)]),
        ([0, 0, 1, 1, 2, 2, 3, 3], (2, 1, 4), [(0, 2), (0, 2), (1, 2), (1, 2)]),
        ([0, 0, 0, 0], (2, 2, 1), [(0, 1)]),
    ],
)
def test_parts_of_a_batch(processes, sizes, parts):
    assert [batch_part(mesh(processes, *sizes), process) for process in sorted(set(processes))] == parts


def test_rows_that_go_to_no_process_evenly():
    with pytest.raises(InputError, match="do not go evenly to the processes; make tensor a divisor"):
        batch_part(mesh([0, 0, 1, 1, 2, 2], 2, 1, 3), 0)


def test_this_process_has_all_rows():
    assert batch_part(jax.make_mesh((8, 1, 1), AXES)) == (0, 1)


def test_data_goes_over_slices():
    devices = [device(number, number // 2, number // 4) for number in range(8)]
    placed = _over_slices(devices, 2, {"data": 4, "fsdp": 2, "tensor": 1})
    assert placed.shape == (4, 2, 1)
    slices = np.vectorize(lambda one: one.slice_index)(placed)
    assert (slices == np.array([0, 0, 1, 1]).reshape(4, 1, 1)).all()
    with pytest.raises(InputError, match="data does not divide over 2 slices"):
        _over_slices(devices, 2, {"data": 1, "fsdp": 8, "tensor": 1})
