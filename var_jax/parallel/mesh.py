"""Device meshes with the three axes that every config names, and the rows of a batch that each process holds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils

from var_jax.errors import InputError

AXES = ("data", "fsdp", "tensor")
# A batch is split over both of these: `fsdp` splits parameters too, `data` keeps a copy in each row.
BATCH_AXES = ("data", "fsdp")


def make_mesh(
    data: int = -1, fsdp: int = 1, tensor: int = 1, devices: Sequence[jax.Device] | None = None
) -> jax.sharding.Mesh:
    """A mesh over all devices, or over `devices`.

    Over several TPU slices, which a slow network connects, it is `data` that is split between them.

    Args:
      data: copies of the model, each on a part of the batch; -1 takes all devices that the other axes leave.
      fsdp: parts that parameters and optimizer state are split into (also splits the batch).
      tensor: parts that heads and hidden widths are split into.
      devices: of the mesh; None for all.

    Raises:
      InputError: if the sizes do not multiply to the number of devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
    for name, size in sizes.items():
        if size < 1 and not (size == -1 and list(sizes.values()).count(-1) == 1):
            raise InputError(f"mesh axis {name} is {size}: expected a positive number, or -1 for one axis")
    known = math.prod(size for size in sizes.values() if size > 0)
    if len(devices) % known:
        raise InputError(f"mesh {_text(sizes)} does not fit {len(devices)} devices: {known} does not divide them")
    sizes = {name: len(devices) // known if size == -1 else size for name, size in sizes.items()}
    if math.prod(sizes.values()) != len(devices):
        raise InputError(f"mesh {_text(sizes)} needs {math.prod(sizes.values())} devices, there are {len(devices)}")
    automatic = (jax.sharding.AxisType.Auto,) * len(AXES)
    if (slices := len({getattr(device, "slice_index", 0) for device in devices})) > 1:
        return jax.sharding.Mesh(_over_slices(devices, slices, sizes), AXES, axis_types=automatic)
    shape = tuple(sizes.values())
    try:
        return jax.make_mesh(shape, AXES, devices=np.asarray(devices), axis_types=automatic)
    except NotImplementedError:  # no axis of the mesh is a product of sides of the torus, such as 2 x 32 on 4x4x4
        placed = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
        return jax.sharding.Mesh(placed, AXES, axis_types=automatic)


def _over_slices(devices: Sequence[jax.Device], slices: int, sizes: dict[str, int]) -> np.ndarray:
    """The devices of several slices in the mesh's shape: all else than `data` stays within a slice."""
    if sizes["data"] % slices:
        raise InputError(
            f"mesh {_text(sizes)}: data does not divide over {slices} slices; make it a multiple by smaller other axes"
        )
    within = (sizes["data"] // slices, sizes["fsdp"], sizes["tensor"])
    return mesh_utils.create_hybrid_device_mesh(within, (slices, 1, 1), devices, allow_split_physical_axes=True)


def batch_sharding(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
    """The sharding of a batch: its rows over `data` and `fsdp`."""
    return jax.sharding.NamedSharding(mesh, jax.P(BATCH_AXES))


def replicated(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
    """A whole copy on every device."""
    return jax.sharding.NamedSharding(mesh, jax.P())


def batch_part(mesh: jax.sharding.Mesh, process: int | None = None) -> tuple[int, int]:
    """The part of a batch's rows that the devices of a process hold, and the number of equal parts.

    Processes whose devices only split heads or hidden widths of the same rows have the same part.

    Raises:
      InputError: if rows lie in such a way that processes hold neither the same nor different parts.
    """
    process = jax.process_index() if process is None else process
    rows = mesh.devices.reshape(-1, mesh.shape["tensor"])  # a row of devices holds the same rows of a batch
    held: dict[int, set[int]] = {}
    for number, row in enumerate(rows):
        for device in row:
            held.setdefault(device.process_index, set()).add(number)
    parts = sorted({tuple(sorted(numbers)) for numbers in held.values()})
    if sum(len(part) for part in parts) != len(rows) or len({len(part) for part in parts}) > 1:
        raise InputError(
            f"mesh {_text(dict(mesh.shape))}: its rows of devices do not go evenly to the processes; make tensor a "
            "divisor or a multiple of the devices of a process"
        )
    return parts.index(tuple(sorted(held[process]))), len(parts)


def check_batch(mesh: jax.sharding.Mesh, batch_size: int, name: str = "batch size") -> None:
    """Raises an InputError unless the rows divide over the mesh."""
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % parts:
        raise InputError(f"{name} {batch_size} does not divide over {parts} parts (mesh axes data x fsdp)")


def _text(sizes: dict[str, int]) -> str:
    return " x ".join(f"{name} {size}" for name, size in sizes.items())
