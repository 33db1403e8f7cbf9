"""One rehearsal: a program is lowered, compiled for a slice, counted, compared with its chips' limits and reported."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import ml_collections

from var_jax.models.costs import encode_flops, sample_flops
from var_jax.models.splash import Splash
from var_jax.parallel.mesh import make_mesh
from var_jax.rehearsal.compile import Memory, compiled
from var_jax.rehearsal.count import Counts, KernelFlops, count
from var_jax.rehearsal.hlo import Array, Instruction, parse
from var_jax.rehearsal.programs import model_config, of_rows, tokenizer_config, training_step
from var_jax.rehearsal.roofline import IMAGENET_PICTURES, RESOURCES, Roofline, roofline, useful_training_flops
from var_jax.rehearsal.topologies import Topology, devices


@dataclasses.dataclass(frozen=True)
class Rehearsal:
    """The result of a rehearsal.

    Attributes:
      what: "train", "tokenize" or "sample".
      name: name of the config or preset.
      topology: the slice.
      mesh: parts along each axis.
      settings: values that a search may change beside the mesh.
      batch: pictures per run of the program, over all chips.
      memory: memory per chip.
      counts, roofline: counts and bounds of a program that fits; else None.
      useful_flops: operations per run, over all chips, without recomputation.
      advice: overrides that would make the program smaller, if it does not fit.
      steps: steps of the config's whole training, or None.
    """

    what: str
    name: str
    topology: Topology
    mesh: dict[str, int]
    settings: dict[str, Any]
    batch: int
    memory: Memory
    counts: Counts | None
    roofline: Roofline | None
    useful_flops: float
    advice: tuple[str, ...] = ()
    steps: int | None = None

    @property
    def fits(self) -> bool:
        """Whether the program can run on these chips."""
        return self.memory.fits and self.roofline is not None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; values unknown for a program that does not fit are None."""
        memory, line, counts = dataclasses.asdict(self.memory), self.roofline, self.counts
        return {
            **{name: getattr(self, name) for name in ("what", "name", "fits", "mesh", "settings", "batch")},
            **{"topology": self.topology.name, "chips": self.topology.chips, "chip_memory_bytes": memory["capacity"]},
            "peak_bytes_per_chip": memory["peak"],
            **{f"{name}_bytes_per_chip": memory[name] for name in ("arguments", "outputs", "temporaries")},
            "largest": list(memory["largest"]),
            "useful_flops": self.useful_flops,
            "flops_per_chip": counts and counts.flops,
            "matrix_passes_flops_per_chip": counts and counts.passes,
            "moved_bytes_per_chip": counts and counts.bytes,
            "moved_by_source": counts and dict(counts.bytes_by_source.most_common(12)),
            "collectives": counts and {kind: dataclasses.asdict(one) for kind, one in counts.collectives.items()},
            "unknown_kernels": counts and sorted(counts.unknown_kernels),
            "unknown_loops": counts and counts.unknown_loops,
            **{f"{name}_seconds": line and getattr(line, f"{name}_seconds") for name in RESOURCES},
            "step_seconds_bound": line and line.seconds,
            "mfu_bound": line and line.mfu,
            "limit": line and line.limit,
            "pictures_per_second_bound": line and self.batch / line.seconds,
            "days_bound": line and self.steps and self.steps * line.seconds / 86400,
            "advice": list(self.advice),
        }

    def text(self) -> str:
        """The report for people."""
        memory, gib = self.memory, 2**30
        where = f"on {self.topology.name}, batch {self.batch}"
        lines = [f"{self.what} {self.name} {where}: {overrides(self) or 'as it is'}"]
        parts = ""
        if memory.arguments is not None:
            sizes = ("arguments", "temporaries", "outputs")
            parts = " (" + ", ".join(f"{name} {getattr(memory, name) / gib:.2f}" for name in sizes) + ")"
        verdict = "fits" if self.fits else "DOES NOT FIT"
        lines.append(f"  HBM per chip   {memory.peak / gib:.2f} of {memory.capacity / gib:.2f} GiB{parts}: {verdict}")
        lines += [f"    {line}" for line in memory.largest]
        if self.advice:
            lines.append(f"  try            {'  or  '.join(self.advice)}")
        if self.roofline is not None:
            lines += self._bounds()
        return "\n".join(lines)

    def _bounds(self) -> list[str]:
        counts, line, chips = self.counts, self.roofline, self.topology.chips
        kinds = [f"{kind} {one.count} x, {one.bytes / 1e9:.2f} GB" for kind, one in sorted(counts.collectives.items())]
        lines = [
            f"  products       {counts.flops / 1e12:.2f} TFLOP per chip, {counts.passes / 1e12:.2f} as bfloat16 "
            f"passes; useful {self.useful_flops / chips / 1e12:.2f}",
            f"  moved          {counts.bytes / 1e9:.1f} GB per chip through HBM",
            *(f"    {size / 1e9:8.2f} GB {place}" for place, size in counts.bytes_by_source.most_common(6)),
            f"  collectives    {'; '.join(kinds) or 'none'}",
            f"  at best        compute {line.compute_seconds:.4f} s, memory {line.memory_seconds:.4f} s, "
            f"interconnect {line.interconnect_seconds:.4f} s: {line.limit} is the limit",
            f"  bound on MFU   {line.mfu:.1%}, {self.batch / line.seconds:.0f} pictures/s",
        ]
        if self.steps:
            lines.append(f"  whole run      {self.steps} steps, {self.steps * line.seconds / 86400:.2f} days at best")
        if counts.unknown_kernels or counts.unknown_loops:
            unknown = ", ".join(sorted(counts.unknown_kernels)) or "no kernels"
            lines.append(f"  not counted    {unknown}; loops of unknown length: {counts.unknown_loops}")
        return lines


def overrides(rehearsal: Rehearsal) -> str:
    """The mesh and settings as arguments of the command line."""
    if rehearsal.what != "train":
        return ""
    values = {f"mesh.{axis}": size for axis, size in rehearsal.mesh.items()} | rehearsal.settings
    return " ".join(f"--config.{name}={value}" for name, value in values.items())


def rehearse_program(
    what: str, config: ml_collections.ConfigDict, name: str, topology: Topology, quick: bool, batch: int
) -> Rehearsal:
    """Rehearses a program with `batch` pictures per run, over all chips; call it inside `topologies.compiler`.

    "train" is a config's training step. "sample", the sampler of a stage-2 config, and "tokenize", the encoder of a
    config's tokenizer (in stage 2 the published one), have their weights on every chip. `quick`: see `rehearsal.quick`.

    Raises:
      InputError: for an invalid config, batch or mesh.
    """
    is_training, mesh = what == "train", dict(_mesh(what, config, topology).shape)
    useful = float(batch * _useful_flops(what, config))
    lower = functools.partial(_lowered, what, config.to_dict(), topology, batch)
    memory, text = compiled(lower, topology.chip, quick)
    counts = bound = None
    if text is not None:
        counts = count(parse(text), _kernels(config) if is_training else None)
        bound = roofline(counts, topology.chip, useful / topology.chips)
    names = ("remat", "accumulate", "attention") if is_training else ()
    return Rehearsal(
        *(what, name, topology, mesh, {name: config[name] for name in names if name in config}, batch),
        *(memory, counts, bound, useful),
        advice=_advice(config, mesh, topology) if is_training and not memory.fits else (),
        steps=_steps(config) if is_training else None,
    )


def _useful_flops(what: str, config: ml_collections.ConfigDict) -> float:
    """Operations per picture."""
    if what == "train":
        return useful_training_flops(model_config(config))
    tokenizer = tokenizer_config(config)
    return encode_flops(tokenizer) if what == "tokenize" else sample_flops(model_config(config), tokenizer, guided=True)


def _lowered(what: str, config: dict[str, Any], topology: Topology, batch: int) -> jax.stages.Lowered:
    """Lowers a program from plain values, so that another process can do it."""
    config = ml_collections.ConfigDict(config)
    mesh = _mesh(what, config, topology)
    return training_step(config, mesh) if what == "train" else of_rows(what, config, mesh, batch)


def _mesh(what: str, config: ml_collections.ConfigDict, topology: Topology) -> jax.sharding.Mesh:
    return make_mesh(**(config.mesh if what == "train" else {}), devices=devices(topology))


def largest_batch(rehearse: Callable[[int], Rehearsal], chips: int, say: Callable[[str], None]) -> Rehearsal:
    """The rehearsal of the largest batch that fits, to within a twentieth; of one picture per chip if none fits.

    Up to the first batch that does not fit, memory is assumed to be linear in the batch. From then on the gap is cut
    where the line through both its ends predicts the limit, but not too near an end: memory leaps where the compiler
    changes layouts.
    """
    tried: dict[int, Rehearsal] = {}

    def attempt(rows: int) -> Rehearsal:
        found = tried[rows] = rehearse(rows * chips)
        verdict = "fits" if found.fits else "does not fit"
        say(f"batch {rows * chips}: {found.memory.peak / 2**30:.2f} GiB per chip, {verdict}")
        return found

    if not attempt(1).fits:
        return tried[1]
    rows = 8
    while True:
        attempt(rows)
        good = max(rows for rows, found in tried.items() if found.fits)
        bad = min((rows for rows, found in tried.items() if not found.fits), default=math.inf)
        if bad - good <= max(1, good // 20):
            return tried[good]
        if bad < math.inf:
            (low, below), (high, above) = (good, tried[good]), (bad, tried[bad])
        else:
            (low, below), (high, above) = sorted(tried.items())[-2:]
        slope = (above.memory.peak - below.memory.peak) / (high - low)
        ahead = good + (below.memory.capacity - tried[good].memory.peak) / max(slope, 1.0)
        if bad < math.inf:
            ahead = min(max(ahead, good + 0.35 * (bad - good)), good + 0.65 * (bad - good))
        rows = max(good + 1, math.floor(1.05 * good), math.floor(min(ahead, bad - 1, 16 * good)))


def _kernels(config: ml_collections.ConfigDict) -> KernelFlops | None:
    """Operations of the attention kernel, unknown to the compiler: those of the blocks that it visits."""
    if config.stage == "tokenizer" or config.attention != "splash":
        return None
    model = model_config(config)
    mask = model.pyramid.block_causal_mask
    visited, blocks = Splash(*config.attention_blocks).visited(mask)
    length = -(-len(mask) // 128) * 128

    def flops(call: Instruction, operands: list[Array]) -> float | None:
        if "splash" not in call.source:
            return None
        pictures_and_heads = max(array.shape[0] for array in operands if len(array.shape) == 3)
        products = 5 if "dkv" in call.source else 2  # the backward pass computes the scores once more
        return products * 2.0 * pictures_and_heads * length**2 * model.head_width * visited / blocks

    return flops


def _advice(config: ml_collections.ConfigDict, mesh: dict[str, int], topology: Topology) -> tuple[str, ...]:
    """Overrides that would make a training step smaller, the cheapest first."""
    found = []
    if mesh["fsdp"] * mesh["tensor"] < topology.chips:
        found.append(f"--config.mesh.data=1 --config.mesh.fsdp={topology.chips // mesh['tensor']}")
    if config.stage == "transformer" and config.attention in ("xla", "plain"):
        found.append("--config.attention=splash")
    if config.remat != "nothing_saveable":
        found.append("--config.remat=nothing_saveable")
    if config.batch_size // config.accumulate > mesh["data"] * mesh["fsdp"]:
        found.append(f"--config.accumulate={2 * config.accumulate}")
    return tuple(found) or ("more chips, or a smaller batch",)


def _steps(config: ml_collections.ConfigDict) -> int | None:
    """Steps of the config's whole training, if it counts in steps or its data are ImageNet's; else None."""
    if config.steps:
        return config.steps
    if config.epochs and config.data.options.get("name") == "imagenet2012":
        return config.epochs * math.ceil(IMAGENET_PICTURES / config.batch_size)
    return None
