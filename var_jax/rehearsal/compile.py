"""Compiles a lowered program for a slice and finds its memory per chip; one too large is a result, not an error."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import jax

from var_jax.rehearsal.quick import buffer_sizes, planned
from var_jax.rehearsal.topologies import Chip

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of a chip's HBM while a program runs; values unknown for a program that did not compile are None.

    Attributes:
      peak: total at the peak.
      capacity: the most that a program may use.
      arguments: state, batch and weights.
      outputs: results that are not stored in place of an argument.
      temporaries: everything in between.
      largest: the largest buffers of a program that does not fit, as the compiler reports them.
    """

    peak: int
    capacity: int
    arguments: int | None = None
    outputs: int | None = None
    temporaries: int | None = None
    largest: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether the program can run."""
        return self.peak <= self.capacity


def compiled(program: Callable[[], jax.stages.Lowered], chip: Chip, quick: bool) -> tuple[Memory, str | None]:
    """Memory per chip, and the text of the program; the text is None if the compiler could not make it fit.

    Args:
      program: lowers the program; with `quick` it must be picklable.
      chip: the chip to compile for.
      quick: no machine code is generated, see `rehearsal.quick`.

    Raises:
      JaxRuntimeError, RuntimeError: if the compiler fails for a reason other than memory.
    """
    try:
        if quick:
            text, buffers = planned(program)
            sizes = buffer_sizes(buffers)
        else:
            done = program().compile()
            text, found = done.as_text(), done.memory_analysis()
            outputs = found.output_size_in_bytes - found.alias_size_in_bytes
            sizes = {"arguments": found.argument_size_in_bytes, "outputs": outputs}
            sizes["temporaries"] = found.temp_size_in_bytes
    except RuntimeError as error:  # JaxRuntimeError is one
        memory = too_large(str(error))
        if memory is None:
            raise
        return memory, None
    return Memory(sum(sizes.values()), chip.memory_bytes, **sizes), text


def too_large(message: str) -> Memory | None:
    """Parses the compiler's error about memory; None for any other error."""
    # The second form is raised before the list of buffers exists, and covers temporaries alone.
    used = re.search(r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm", message) or re.search(
        r"temporaries \(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)", message
    )
    if "RESOURCE_EXHAUSTED" not in message or not used:
        return None
    peak, capacity = (round(float(used[i]) * _UNITS[used[i + 1]]) for i in (1, 3))
    places = re.findall(r"Size: ([\d.]+[KMGT]?)\s+(?:Operator: op_name=\"([^\"]*)\")?.*?\n\s+Shape: (\S+)", message)
    largest = tuple(f"{size} {shape.split('{')[0]} {where}".strip() for size, where, shape in places[:5])
    return Memory(peak, capacity, largest=largest)
