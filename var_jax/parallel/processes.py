"""Several processes that work together, through `jax.distributed`."""

from __future__ import annotations

import re

import jax

from var_jax.errors import InputError

EXPECTED = "'auto' (a TPU pod, Slurm, ...), or HOST:PORT,COUNT,INDEX, the same HOST:PORT in each"
_EXPLICIT = re.compile(r"(?P<address>[^,\s]+:\d+),(?P<count>\d+),(?P<index>\d+)")
_SECONDS_TO_MEET = 300
_SECONDS_TO_END = 24 * 3600  # after the first process has ended: the others may have more to do


def join(which: str) -> None:
    """Joins the other processes; afterwards `jax.process_index()` tells which of `jax.process_count()` this is.

    To be called before anything asks for devices. A process that dies ends the others, within minutes.

    Args:
      which: "auto" where the environment tells (a TPU pod, Slurm, Open MPI), else "HOST:PORT,COUNT,INDEX" with an
        address of the process with index 0 that all can reach.

    Raises:
      InputError: for another text, or if the processes do not find each other.
    """
    given = {}
    if which != "auto":
        if not (found := _EXPLICIT.fullmatch(which)) or not int(found["index"]) < int(found["count"]):
            raise InputError(f"processes '{which}': expected {EXPECTED}, INDEX from 0 to COUNT - 1")
        count, index = int(found["count"]), int(found["index"])
        given = {"coordinator_address": found["address"], "num_processes": count, "process_id": index}
    waits = {"initialization_timeout": _SECONDS_TO_MEET, "shutdown_timeout_seconds": _SECONDS_TO_END}
    try:
        jax.distributed.initialize(**given, **waits)
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"processes '{which}': do not find each other ({reason}); expected {EXPECTED}") from None
