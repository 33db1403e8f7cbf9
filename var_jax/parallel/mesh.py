"""Device meshes with the three axes that every config speaks of."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import numpy as np

from var_jax.errors import InputError

AXES = ("data", "fsdp", "tensor")
# A batch is split over both of these: `fsdp` splits parameters too, `data` keeps a copy in each row.
BATCH_AXES = ("data", "fsdp")


def make_mesh(
    data: int = -1, fsdp: int = 1, tensor: int = 1, devices: Sequence[jax.Device] | None = None
) -> jax.sharding.Mesh:
    """A mesh over all devices (or the given ones).

    Args:
      data: copies of the model, each on a part of the batch; -1 takes what the others leave.
      fsdp: parts that parameters and optimizer state are split into (also splits the batch).
      tensor: parts that heads and hidden widths are split into.
      devices: instead of all there are.

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
    return jax.make_mesh(tuple(sizes.values()), AXES, devices=np.asarray(devices), axis_types=automatic)


def batch_sharding(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
    """Rows of a batch over `data` and `fsdp`."""
    return jax.sharding.NamedSharding(mesh, jax.P(BATCH_AXES))


def check_batch(mesh: jax.sharding.Mesh, batch_size: int, what: str = "batch size") -> None:
    """Raises an InputError unless the rows divide over the mesh."""
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % parts:
        raise InputError(f"{what} {batch_size} does not divide over {parts} parts (mesh axes data x fsdp)")


def _text(sizes: dict[str, int]) -> str:
    return " x ".join(f"{name} {size}" for name, size in sizes.items())
