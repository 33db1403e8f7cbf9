"""Compiles a lowered program for a slice and says what it takes of a chip's memory; too much is an answer, no error."""

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
    """Bytes of a chip's HBM while a program runs; what is not known of one that did not compile is None.

    Attributes:
      peak: all at once.
      capacity: what a program may take.
      arguments: state, batch and weights.
      outputs: results that do not lie where an argument was.
      temporaries: everything in between.
      largest: of a program that does not fit, what takes most, as the compiler tells it.
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
    """Memory a chip, and the text of the program, or None for one that the compiler could not make fit.

    Args:
      program: what lowers it; with `quick` it is to be pickled.
      chip: what it is for.
      quick: no machine code is generated, see `rehearsal.quick`.

    Raises:
      JaxRuntimeError, RuntimeError: where the compiler fails for another reason than memory.
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
    """What the compiler's complaint about memory says; None if it complains about something else."""
    # The second way of saying it comes before the list of buffers is made, and is about temporaries alone.
    used = re.search(r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm", message) or re.search(
        r"temporaries \(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)", message
    )
    if "RESOURCE_EXHAUSTED" not in message or not used:
        return None
    peak, capacity = (round(float(used[i]) * _UNITS[used[i + 1]]) for i in (1, 3))
    places = re.findall(r"Size: ([\d.]+[KMGT]?)\s+(?:Operator: op_name=\"([^\"]*)\")?.*?\n\s+Shape: (\S+)", message)
    largest = tuple(f"{size} {shape.split('{')[0]} {where}".strip() for size, where, shape in places[:5])
    return Memory(peak, capacity, largest=largest)
