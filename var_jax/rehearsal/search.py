"""`--search`: compiles meshes, recomputation, micro-batches and attention kinds in turn, the most promising first.

Compiling takes long, so candidates are ordered by an estimate, and those whose estimate is far above the chip's
memory, or whose best possible time is no better than one already found, are left out.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import ml_collections

from var_jax.errors import InputError
from var_jax.models.costs import tokenizer_parameters, transformer_parameters
from var_jax.models.tokenizer import TokenizerConfig
from var_jax.models.transformer import TransformerConfig
from var_jax.rehearsal.programs import model_config
from var_jax.rehearsal.report import Rehearsal, overrides, rehearse_program
from var_jax.rehearsal.roofline import useful_training_flops
from var_jax.rehearsal.topologies import Topology

# Policy of recomputation -> (share of the forward pass done twice, widths per token that a block keeps, widths that it
# moves through memory forward and backward); the widths as counted in d30 compiled for v5p and v6e.
_REMAT = {
    None: (0.0, 62, 300),
    "products": (0.0, 13, 176),
    "dots_with_no_batch_dims_saveable": (0.0, 11, 180),
    "nothing_saveable": (1.0, 1, 200),
}
_SCORE_BYTES = 60  # bytes that plain attention moves per score, as counted in d16 compiled for v5e
_TENSOR = (1, 2, 4)
_MICRO_BATCHES = (1, 2, 4)
_HOPELESS = 1.5  # times the chip's memory, since the estimate is rough


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A way to run a config, with estimates of its cost.

    Attributes:
      changes: config keys and their values.
      bytes: estimated memory per chip.
      seconds: estimated seconds per step.
      least_seconds: a lower bound on the seconds per step, whatever the compiler does.
    """

    changes: dict[str, Any]
    bytes: float
    seconds: float
    least_seconds: float


def search(
    config: ml_collections.ConfigDict, name: str, topology: Topology, most: int, quick: bool, say: Callable[[str], None]
) -> Rehearsal:
    """The best of at most `most` compiled candidates: the fastest that fits, else the smallest.

    Args:
      config: the config; its batch and model stay as they are.
      name: the config's name.
      topology: the slice.
      most: maximal number of compiled candidates.
      quick: no machine code is generated, see `rehearsal.quick`.
      say: called with a line per finished candidate.

    Raises:
      InputError: if the config's model or batch cannot be split over the slice.
    """
    ordered = candidates(config, topology)
    if not ordered:
        raise InputError(
            f"search: batch_size {config.batch_size} and the model's width cannot be divided over {topology.chips} "
            "chips; change --config.batch_size or the topology"
        )
    best: Rehearsal | None = None
    for number, candidate in enumerate(ordered[:most], 1):
        if best and best.fits and candidate.least_seconds >= best.roofline.seconds:
            continue
        attempt = changed(config, candidate.changes)
        found = rehearse_program("train", attempt, name, topology, quick, config.batch_size)
        best = found if best is None else min(best, found, key=_rank)
        verdict = f"{found.roofline.mfu:.1%}, {found.roofline.limit}" if found.fits else "does not fit"
        size = found.memory.peak / 2**30
        say(f"{number}/{min(most, len(ordered))} {overrides(found)}: {size:.2f} GiB per chip, {verdict}")
    return best


def candidates(config: ml_collections.ConfigDict, topology: Topology) -> list[Candidate]:
    """All valid candidates, the fastest by estimate first; those that cannot fit by far are left out."""
    model = model_config(config)
    numbers = (tokenizer_parameters if isinstance(model, TokenizerConfig) else transformer_parameters)(model)
    changes = _changes(config, model, topology.chips)
    from_config = [_estimate(one, model, numbers, config.batch_size, topology) for one in changes]
    hopeful = [one for one in from_config if one.bytes < _HOPELESS * topology.chip.memory_bytes]
    fits = lambda one: one.bytes <= 0.9 * topology.chip.memory_bytes
    return sorted(
        hopeful or from_config[-1:],
        key=lambda one: (not fits(one), round(one.seconds, 3), one.changes["accumulate"], one.bytes),
    )


def changed(config: ml_collections.ConfigDict, changes: dict[str, Any]) -> ml_collections.ConfigDict:
    """A copy of the config with these keys set."""
    config = copy.deepcopy(config)
    config.update_from_flattened_dict(changes)
    return config


def _rank(one: Rehearsal) -> tuple[bool, float]:
    """The order of preference: the fastest that fits, else the smallest."""
    return not one.fits, one.roofline.seconds if one.fits else one.memory.peak


def _changes(
    config: ml_collections.ConfigDict, model: TransformerConfig | TokenizerConfig, chips: int
) -> Iterator[dict[str, Any]]:
    is_transformer = isinstance(model, TransformerConfig)
    divisors = [size for size in range(1, chips + 1) if chips % size == 0]
    splits = lambda fsdp: model.width % fsdp == 0 if is_transformer else model.base_channels % fsdp == 0
    tensors = [size for size in _TENSOR if is_transformer and model.num_heads % size == 0] or [1]
    kinds = ("splash", "xla") if is_transformer else (None,)
    for fsdp, tensor, micro, remat, kind in itertools.product(divisors, tensors, _MICRO_BATCHES, _REMAT, kinds):
        if chips % (fsdp * tensor) or not splits(fsdp) or config.batch_size % (micro * (chips // tensor)):
            continue
        changes = {"mesh.data": chips // (fsdp * tensor), "mesh.fsdp": fsdp, "mesh.tensor": tensor}
        yield changes | {"remat": remat, "accumulate": micro} | ({"attention": kind} if kind else {})


def _estimate(
    changes: dict[str, Any], model: TransformerConfig | TokenizerConfig, numbers: int, batch: int, topology: Topology
) -> Candidate:
    """Estimates time from products, moved scores and travelling weights, and memory from state and kept values."""
    chip, chips = topology.chip, topology.chips
    recomputed, widths, moved_widths = _REMAT[changes["remat"]]
    fsdp, tensor, micro = changes["mesh.fsdp"], changes["mesh.tensor"], changes["accumulate"]
    rows = batch * tensor / chips  # pictures per chip, over all its micro-batches
    compute = batch / chips * useful_training_flops(model) * (1 + recomputed / 3) / chip.peak_flops
    if isinstance(model, TokenizerConfig):
        blocks = 4 * 11 * model.image_size**2 * model.base_channels
        state, kept = 24 * numbers / fsdp, 2 * blocks * (0.3 if recomputed else 1.0)
        return Candidate(changes, state + rows / micro * kept, compute + 8 * numbers / chip.interconnect, compute)
    tokens = model.pyramid.length
    scores = 0 if changes["attention"] == "splash" else model.num_heads / tensor * tokens**2
    block = 2 * tokens * model.width * widths + (0 if recomputed == 1 else 6 * scores)
    logits = 12 * tokens * model.codebook_size / tensor
    state = (12 + (4 if micro > 1 else 0) + 6) * numbers / (fsdp * tensor)
    moved = rows * model.depth * (2 * tokens * model.width * moved_widths + scores * _SCORE_BYTES)
    travels = (4 + 4 * micro) * numbers / tensor * (fsdp > 1) + 8 * numbers / (fsdp * tensor) * (fsdp * tensor < chips)
    travels += (tensor > 1) * rows * model.depth * tokens * model.width * 2 * 8
    seconds = max(compute, moved / chip.memory_bandwidth, travels / chip.interconnect)
    memory = state + rows / micro * (model.depth * block + logits + 2 * tokens * model.width * 20 + 6 * scores)
    return Candidate(changes, memory, seconds, compute)
