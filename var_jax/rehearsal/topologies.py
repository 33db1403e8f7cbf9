"""TPU chips and slices: the chips' figures, the existing slices, and their devices from the compiler alone.

Nothing here needs a TPU: the compiler (libtpu) runs on any Linux PC and describes the devices it compiles for.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import importlib.util
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
from jax.experimental import topologies

from var_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Chip:
    """The vendor's figures of a chip.

    Attributes:
      name: the name in a topology's name.
      peak_flops: bfloat16 operations per second of the matrix units.
      memory_bytes: HBM (the compiler keeps a little of it).
      memory_bandwidth: bytes per second from and to HBM.
      interconnect: bytes per second out of the chip, all links together.
      dimensions: dimensions of the network between chips.
    """

    name: str
    peak_flops: float
    memory_bytes: int
    memory_bandwidth: float
    interconnect: float
    dimensions: int


CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", 275e12, 32 * 2**30, 1228e9, 300e9, 3),
        Chip("v5e", 197e12, 16 * 2**30, 819e9, 200e9, 2),
        Chip("v5p", 459e12, 95 * 2**30, 2765e9, 600e9, 3),
        Chip("v6e", 918e12, 32 * 2**30, 1640e9, 448e9, 2),
    )
}
# Slices that can be rented, up to 512 chips; larger ones compile no differently.
_SLICES = {
    2: ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    3: ("1x1x1", "2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8"),
}

# Lets the compiler load on a machine without a TPU, or with a busy one: it must not query the metadata server for the
# TPU's kind (the two values only avoid a warning), and the lock below decides which process may compile.
_WITHOUT_A_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """A slice: one kind of chip, and the number of chips along each axis of their network."""

    chip: Chip
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """The name on the command line, like "v5p:4x4x4"."""
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"

    @property
    def chips(self) -> int:
        """Number of chips."""
        return math.prod(self.shape)

    @classmethod
    def parse(cls, text: str) -> Topology:
        """Parses a `name`.

        Raises:
          InputError: for an unknown chip or slice; the message lists the known ones.
        """
        chip_name, _, shape = text.partition(":")
        if chip_name not in CHIPS:
            raise InputError(f"topology '{text}': known chips are {', '.join(CHIPS)}, like v5e:4x4 or v5p:4x4x4")
        chip = CHIPS[chip_name]
        if shape not in _SLICES[chip.dimensions]:
            raise InputError(f"topology '{text}': {chip_name} has {', '.join(_SLICES[chip.dimensions])}")
        return cls(chip, tuple(int(side) for side in shape.split("x")))


@contextlib.contextmanager
def compiler(say: Callable[[str], None] = print) -> Iterator[None]:
    """Makes this process the only one on this machine that compiles for TPUs; waits, and says so, while another does.

    A compilation takes several GB and all cores. Enter this before the compiler is loaded: it sets its environment.

    Raises:
      InputError: if the compiler is not installed.
    """
    if importlib.util.find_spec("libtpu") is None and not os.environ.get("TPU_LIBRARY_PATH"):
        raise InputError(
            "the TPU compiler is not installed: pip install 'var_jax[tpu]' (Linux on x86-64, no TPU needed)"
        )
    os.environ.update(_WITHOUT_A_TPU)
    os.environ["JAX_PLATFORMS"] = "cpu"
    jax.config.update("jax_platforms", "cpu")  # JAX may have been imported with another value
    path = Path(tempfile.gettempdir()) / f"var_jax_tpu_compiler.{os.getuid()}.lock"
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process compiles for TPUs here: waiting until it is done")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def devices(topology: Topology) -> list[jax.Device]:
    """The slice's devices, which exist for the compiler only; inside `compiler`.

    Raises:
      InputError: if this compiler does not know the slice.
    """
    extra = {"chips_per_host_bounds": (1,) * 3} if topology.chips == 1 else {}
    if topology.chip.name == "v4":
        extra["chip_config_name"] = "megacore"  # its two cores as one device, as on a real v4
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=topology.name, **extra).devices
    except (jax.errors.JaxRuntimeError, RuntimeError) as error:
        reason = re.sub(r"\s+", " ", str(error))[:200]
        raise InputError(f"topology {topology.name}: the TPU compiler refuses it ({reason})") from None
    return list(found)
