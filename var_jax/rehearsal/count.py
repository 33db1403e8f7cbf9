"""Counts a compiled program's work on one device: operations, bytes moved through HBM, and collectives.

A loop's body counts as often as it runs. Operations are those of matrix products and convolutions (at borders, only
positions inside the picture); in `passes`, a float32 product at full precision counts for the six bfloat16 passes it
takes. Bytes are those that every instruction outside fusions reads and writes in HBM: a slice of a large array counts
as the slice, an update in place as the update, and data in a core's own memory as nothing. The compiler does not know
the work of a custom kernel: its operations come from a function of the caller.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Callable, Mapping

import numpy as np

from var_jax.rehearsal.hlo import Array, Computation, Instruction, Module

# (custom call, arrays of its operands) -> operations, or None for an unknown call.
KernelFlops = Callable[[Instruction, list[Array]], float | None]

_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id"),
    *("opt-barrier", "domain", "async-update", "add-dependency", "get-dimension-size"),
}
_FREE_CALLS = {"AllocateBuffer", "ConcatBitcast", "AssumeGatherIndicesInBound"}  # these name buffers and do no work
_ALL_BUT_ITS_OWN = ("all-gather", "reduce-scatter", "all-to-all", "ragged-all-to-all")
# Kind -> bytes that a device sends, over those of the whole array, by the number of devices.
_COLLECTIVES = {
    **dict.fromkeys(_ALL_BUT_ITS_OWN, lambda parts: (parts - 1) / parts),
    "all-reduce": lambda parts: 2 * (parts - 1) / parts,
    **dict.fromkeys(("collective-permute", "collective-broadcast"), lambda parts: 1.0),
}
_PASSES = {"highest": 6, "high": 3}  # bfloat16 products per float32 product
_TARGET, _INDEX = r'custom_call_target="([^"]*)"', r"index=(\d+)"


@dataclasses.dataclass
class Collective:
    """All collectives of a kind: their number, and the bytes that leave each device for them."""

    count: int = 0
    bytes: float = 0.0


@dataclasses.dataclass
class Counts:
    """The work of one device in one run of a program.

    Attributes:
      flops: operations of products, convolutions and known kernels.
      passes: like `flops`, with a float32 product counted for the bfloat16 passes that it takes.
      bytes: bytes read from and written to HBM.
      collectives: collectives by kind.
      bytes_by_source: `bytes` by their place in the Python program.
      unknown_kernels: names of custom calls whose operations are not in `flops`.
      unknown_loops: loops whose number of runs the compiler does not report; their body counts once.
    """

    flops: float = 0.0
    passes: float = 0.0
    bytes: float = 0.0
    collectives: dict[str, Collective] = dataclasses.field(default_factory=lambda: collections.defaultdict(Collective))
    bytes_by_source: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    unknown_kernels: set[str] = dataclasses.field(default_factory=set)
    unknown_loops: int = 0

    @property
    def wire_bytes(self) -> float:
        """Bytes that leave a device, over all collectives."""
        return sum(kind.bytes for kind in self.collectives.values())


def count(module: Module, kernel_flops: KernelFlops | None = None) -> Counts:
    """Counts a parsed program; see the top of this file."""
    counter = _Counter(module.partitions, kernel_flops or (lambda call, operands: None))
    counter.add(module.entry, 1.0)
    return counter.total


class _Counter:
    def __init__(self, partitions: int, kernel_flops: KernelFlops) -> None:
        self.partitions, self.kernel_flops, self.total = partitions, kernel_flops, Counts()

    def add(self, computation: Computation, times: float) -> None:
        """Adds the work of a computation outside fusions, `times` over."""
        for it in computation.instructions:
            if it.opcode == "while":
                runs = _runs(it)
                self.total.unknown_loops += runs is None
                self.add(it.called("body")[0], times * (runs or 1))
            elif it.opcode == "conditional":
                self._dearest(it.called("branch_computations", "true_computation", "false_computation"), times)
            elif it.opcode in ("call", "async-start"):
                for callee in it.called("to_apply", "calls"):
                    self.add(callee, times)
            elif it.opcode not in _FREE and not it.opcode.endswith("-done"):
                size = _moved(it) * times
                self.total.bytes += size
                self.total.bytes_by_source[_place(it.source)] += size
                self._work(it, times)

    def _dearest(self, branches: list[Computation], times: float) -> None:
        """Adds the work of the conditional's branch that moves the most bytes."""
        costs = []
        for number, branch in enumerate(branches):
            trial = _Counter(self.partitions, self.kernel_flops)
            trial.add(branch, 1.0)
            costs.append((trial.total.bytes, number))
        self.add(branches[max(costs)[1]], times)

    def _work(self, it: Instruction, times: float) -> None:
        """Adds operations and collectives of an instruction and of the instructions fused into it."""
        kind = it.opcode.removesuffix("-start")
        if it.opcode in ("dot", "convolution"):
            flops = times * (_dot(it) if it.opcode == "dot" else _convolution(it))
            self.total.flops += flops
            self.total.passes += flops * _passes(it)
        elif it.opcode == "custom-call":
            self._kernel(it, times)
        elif kind in _COLLECTIVES:
            self._collective(it, kind, times)
        elif it.opcode == "fusion":
            for inside in it.called("calls"):
                scatters = _is_reduce_scatter(inside)
                for fused in inside.instructions:
                    if scatters and fused.opcode == "all-reduce":
                        self._collective(fused, "reduce-scatter", times)
                    else:
                        self._work(fused, times)

    def _kernel(self, it: Instruction, times: float) -> None:
        flops = self.kernel_flops(it, it.inputs)
        if flops is not None:
            self.total.flops += times * flops
            self.total.passes += times * flops
        elif it.find(_TARGET) == "tpu_custom_call":
            self.total.unknown_kernels.add(it.source)

    def _collective(self, it: Instruction, kind: str, times: float) -> None:
        incoming, parts = sum(array.bytes for array in it.inputs), _group_size(it, self.partitions)
        whole = incoming * parts if kind == "all-gather" else incoming
        found = self.total.collectives[kind]
        found.count += round(times)
        found.bytes += times * whole * _COLLECTIVES[kind](parts)


def _runs(loop: Instruction) -> int | None:
    """Number of runs of a loop's body: from the compiler, or from its condition's limit and its step from 0."""
    if known := loop.find(r'known_trip_count"?:\{"?n"?:"?(\d+)'):
        return int(known)
    condition, body = loop.called("condition", "body")
    limits = [i for i in condition.instructions if i.opcode == "constant" and i.out.dtype in ("s32", "u32")]
    counters = [i for i in condition.instructions if i.opcode == "get-tuple-element"]
    if len(limits) != 1 or len(counters) != 1 or body.root.opcode != "tuple":
        return None
    place = int(counters[0].find(_INDEX))
    step = _growth(body.root.operands[place], place)
    return math.ceil(int(limits[0].literal) / step) if step else None


def _growth(it: Instruction, place: int) -> int | None:
    """The amount by which a value in a loop's body exceeds the incoming element `place`; None if not recognised."""
    if it.opcode == "get-tuple-element":
        return 0 if int(it.find(_INDEX)) == place else None
    if it.opcode in ("copy", "bitcast"):
        return _growth(it.operands[0], place)
    constants = [operand for operand in it.operands if operand.opcode == "constant"]
    rest = [operand for operand in it.operands if operand.opcode != "constant"]
    if it.opcode != "add" or len(constants) != 1 or len(rest) != 1:
        return None
    before = _growth(rest[0], place)
    return None if before is None else before + int(constants[0].literal)


def _dot(it: Instruction) -> float:
    axes = it.find(r"lhs_contracting_dims=\{([\d,]*)\}")
    return 2.0 * it.out.size * math.prod(it.inputs[0].shape[int(axis)] for axis in axes.split(",") if axis)


def _convolution(it: Instruction) -> float:
    """Two operations per pair of a real input and a weight: padding and dilation are no work."""
    x, weights = it.inputs
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", it.attributes)
    image, kernel, out = labels[1], labels[2], labels[3]
    spatial = sorted(letter for letter in image if letter.isdigit())  # as `window` lists them
    fields = dict(part.split("=") for part in it.find(r"window=\{([^}]*)\}").split())
    pairs = 1
    for axis, letter in enumerate(spatial):
        sizes = x.shape[image.index(letter)], weights.shape[kernel.index(letter)]
        own = {name: int(values.split("x")[axis].split("_")[0]) for name, values in fields.items()}
        pairs *= _valid_pairs(*sizes, it.out.shape[out.index(letter)], own)
    rows = x.shape[image.index("b")] / int(it.find(r"batch_group_count=(\d+)") or 1)
    return 2.0 * rows * it.out.shape[out.index("f")] * weights.shape[kernel.index("i")] * pairs


def _valid_pairs(size: int, kernel: int, out: int, window: Mapping[str, int]) -> int:
    """Pairs (output position, kernel position) along one axis that meet an input, not padding or a dilation's gap."""
    dilate = window.get("lhs_dilate", 1)
    taps = np.arange(kernel) * window.get("rhs_dilate", 1) - window.get("pad", 0)
    places = np.arange(out)[:, None] * window.get("stride", 1) + taps
    return int(np.sum((places >= 0) & (places <= (size - 1) * dilate) & (places % dilate == 0)))


def _passes(it: Instruction) -> int:
    if all(array.dtype != "f32" for array in it.inputs[:2]):
        return 1
    return max(_PASSES.get(name, 1) for name in it.find(r"operand_precision=\{([\w,]+)\}").split(","))


def _group_size(it: Instruction, partitions: int) -> int:
    if devices := it.find(r"replica_groups=\{\{([\d,]+)\}"):
        return len(devices.split(","))
    if size := it.find(r"replica_groups=\[\d+,(\d+)\]"):
        return int(size)
    if groups := re.search(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(.*?\))? *\{([^}]*)\}", it.attributes):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", groups[1]))
        named = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", groups[2])  # an axis, or a part of one
        return math.prod(int(part or sizes[axis]) for axis, part in named)
    return partitions


def _is_reduce_scatter(computation: Computation) -> bool:
    """Whether this is a TPU's form of a reduce-scatter: an all-reduce of which a slice is kept."""
    opcodes = {i.opcode for i in computation.instructions}
    return "all-reduce" in opcodes and computation.root.opcode == "dynamic-slice"


def _place(source: str) -> str:
    """A source, shortened but still distinguishable."""
    names = [re.sub(r"^\w+\((.*)\)$", r"\1", name) for name in source.split("/")]
    return "/".join([("backward/" if "transpose(" in source else "") + names[0], *names[-2:]])


def _moved(it: Instruction) -> float:
    """Bytes that an instruction moves through HBM."""
    if it.opcode == "fusion":
        return _fusion_bytes(it)
    operands = it.inputs
    if it.opcode == "custom-call" and it.find(_TARGET) in _FREE_CALLS:
        return 0.0
    if it.opcode == "copy-start":
        return operands[0].traffic + it.out.traffic
    if it.opcode in ("dynamic-slice", "gather", "slice"):
        return _through(operands[0], it.out)
    if it.opcode in ("dynamic-update-slice", "scatter"):
        update = operands[1 if it.opcode == "dynamic-update-slice" else -1]
        return update.traffic + _through(operands[0], update) / 2
    read, results = (sum(array.traffic for array in arrays) for arrays in (operands, it.arrays))
    if it.opcode.endswith("-start"):  # its result holds its operands and the future output
        return max(read, results)
    return read + results


def _through(large: Array, part: Array) -> float:
    """Bytes of reading a part of `large` and writing it."""
    return (0 if large.space else part.bytes) + part.traffic


def _fusion_bytes(it: Instruction) -> float:
    inside = it.called("calls")[0]
    roots = inside.root.operands if inside.root.opcode == "tuple" else (inside.root,)
    total = float(sum(_written(root, array) for root, array in zip(roots, it.arrays, strict=False)))
    for number, parameter in inside.parameters.items():
        outer = it.operands[number].arrays
        if outer and (len(outer) > 1 or not outer[0].space):
            total += min(_read(inside, parameter), sum(array.traffic for array in parameter.arrays))
    return total


def _written(root: Instruction, array: Array) -> int:
    while root.opcode in ("bitcast", "copy") and root.operands:
        root = root.operands[0]
    if root.opcode == "dynamic-update-slice":
        return 0 if array.space else root.operands[1].out.bytes
    return array.traffic


def _read(inside: Computation, value: Instruction) -> float:
    """Bytes read of a value within a fusion: only its slices, if nothing but slices is used."""
    total = 0.0
    for user in inside.users[value]:
        if user.opcode == "bitcast":
            total += _read(inside, user)
        elif user.opcode == "fusion":
            nested = user.called("calls")[0]
            places = [number for number, operand in enumerate(user.operands) if operand is value]
            total += sum(_read(nested, nested.parameters[number]) for number in places)
        elif user.opcode in ("dynamic-slice", "gather", "slice") and user.operands[0] is value:
            total += user.out.bytes
        elif user.opcode != "dynamic-update-slice" or user.operands[0] is not value:
            return float(sum(array.bytes for array in value.arrays))
    return total
