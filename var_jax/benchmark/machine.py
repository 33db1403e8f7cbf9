"""The machine that a benchmark runs on: its description, the peaks of its arithmetic and memory, the memory in use."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import resource
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from var_jax import __version__
from var_jax.benchmark.timing import timed
from var_jax.models.precision import precision_for

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "grain", "pillow")
_SMALLEST_MATRIX, _LARGEST_MATRIX = 1024, 16384
_SMALLEST_VECTOR, _LARGEST_VECTOR = 2**26, 2**28  # float32 numbers: from 256 MiB, larger than any cache
_LONG_ENOUGH = 0.03  # seconds of a call beside which the cost of starting it is negligible
_TRIES = 5


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe() -> dict[str, Any]:
    """The device that a benchmark uses (the first one) and the host; starts JAX."""
    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "device": _processor() if device.platform == "cpu" else device.device_kind,
        "devices": len(jax.devices()),
        "cores": cores(),
        "system": platform.platform(),
    }


def default_dtype() -> str:
    """The compute type unless one is chosen: float32 on CPUs, bfloat16 elsewhere; starts JAX."""
    return "float32" if jax.default_backend() == "cpu" else "bfloat16"


def versions() -> dict[str, str]:
    """Versions of this package, of Python, and of the libraries that the figures may depend on."""
    found = {"var_jax": __version__, "python": platform.python_version()}
    return found | {name: importlib.metadata.version(name) for name in _PACKAGES}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


@dataclasses.dataclass(frozen=True)
class Limits:
    """The device's measured peaks.

    Attributes:
      matrix_flops: operations per second in a product of large square matrices, by dtype.
      memory_bandwidth: bytes per second from and to memory.
    """

    matrix_flops: dict[str, float]
    memory_bandwidth: float

    def better(self, other: Limits) -> Limits:
        """The higher of two measurements, figure by figure: another program may have disturbed either."""
        flops = {dtype: max(value, other.matrix_flops[dtype]) for dtype, value in self.matrix_flops.items()}
        return Limits(flops, max(self.memory_bandwidth, other.memory_bandwidth))


def measure_limits(dtypes: Iterable[str]) -> Limits:
    """Measures the device's limits here and now; a second or two."""
    return Limits({dtype: matrix_peak(dtype) for dtype in sorted(set(dtypes))}, memory_bandwidth())


def matrix_peak(dtype: str) -> float:
    """Operations per second in a square matrix product, the best over growing sizes; float32 in full precision."""
    multiply = jax.jit(lambda a, b: jnp.matmul(a, b, precision=precision_for(jnp.dtype(dtype))))

    def at(size: int) -> tuple[float, Callable[[], jax.Array]]:
        a, b = (jax.random.normal(jax.random.key(n), (size, size), dtype) for n in range(2))
        return 2.0 * size**3, lambda: multiply(a, b)

    return _best(at, _SMALLEST_MATRIX, _LARGEST_MATRIX)


def memory_bandwidth() -> float:
    """Bytes per second of y = y / 2 + x on vectors larger than any cache: two are read, one is written in place."""
    triad = jax.jit(lambda y, x: 0.5 * y + x, donate_argnums=0)

    def at(size: int) -> tuple[float, Callable[[], jax.Array]]:
        vectors = [jnp.zeros(size), jnp.ones(size)]

        def call() -> jax.Array:
            vectors[0] = triad(*vectors)
            return vectors[0]

        return 3.0 * 4 * size, call

    return _best(at, _SMALLEST_VECTOR, _LARGEST_VECTOR)


def _best(at: Callable[[int], tuple[float, Callable[[], jax.Array]]], size: int, largest: int) -> float:
    """The highest work per second of calls by size; sizes double until a call is long enough to be judged."""
    best = 0.0
    while True:
        work, call = at(size)
        timed(call)  # compiles
        seconds = min(timed(call) for _ in range(_TRIES))
        best = max(best, work / seconds)
        if seconds >= _LONG_ENOUGH or size >= largest:
            return best
        size *= 2


def peak_bytes() -> int:
    """Peak memory so far, in bytes: the device's if it reports one, else all of this process's."""
    stats = jax.devices()[0].memory_stats() or {}
    return int(stats.get("peak_bytes_in_use", 0)) or resident_peak()


def resident_peak() -> int:
    """Peak main memory of this process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kibibytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
