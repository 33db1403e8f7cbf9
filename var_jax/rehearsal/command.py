"""The `var-jax rehearse` command: from parsed arguments to a rehearsal."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from var_jax.errors import InputError
from var_jax.rehearsal.report import Rehearsal, largest_batch, rehearse_program
from var_jax.rehearsal.search import search
from var_jax.rehearsal.topologies import Topology
from var_jax.training.config import load_config

WHAT = ("train", "tokenizer", "tokenize", "sample")


def rehearse(
    config_name: str,
    overrides: Sequence[str],
    topology: Topology,
    what: str,
    *,
    batch: int | None = None,
    most: int = 0,
    quick: bool = False,
    say: Callable[[str], None] = print,
) -> Rehearsal:
    """Rehearses one program; call it inside `topologies.compiler`.

    Args:
      config_name, overrides: see `load_config`.
      topology: the slice.
      what: one of `WHAT`; "train" works for any config, "tokenizer" for a tokenizer's only.
      batch: batch of tokenizing and sampling; None searches for the largest that fits.
      most: maximal number of programs that a search for training compiles; 0 takes the config as it is.
      quick: no machine code is generated, see `rehearsal.quick`.
      say: called with the interim results of a search.

    Raises:
      InputError: for arguments that do not fit together.
    """
    config = load_config(config_name, overrides)
    if what in ("tokenize", "sample"):
        if most:
            raise InputError(f"--search: is for training, --what {what} has a --batch instead")
        if what == "sample" and config.stage != "transformer":
            raise InputError(f"config {config_name}: is a tokenizer's; --what sample needs a transformer's")
        attempt = functools.partial(rehearse_program, what, config, config_name, topology, quick)
        return attempt(batch) if batch else largest_batch(attempt, topology.chips, say)
    if batch is not None:
        raise InputError("--batch: is for --what tokenize and sample; training has --config.batch_size")
    if what == "tokenizer" and config.stage != "tokenizer":
        raise InputError(f"config {config_name}: is a transformer's, --what tokenizer needs a tokenizer's")
    if most:
        return search(config, config_name, topology, most, quick, say)
    return rehearse_program("train", config, config_name, topology, quick, config.batch_size)
