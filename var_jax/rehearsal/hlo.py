"""Reads the text of a compiled XLA program into instructions with shapes, operands and attributes."""

from __future__ import annotations

import dataclasses
import functools
import math
import re

_BITS = {"pred": 8, "token": 0}  # of all others, like "bf16", the name has them
_ARRAY = re.compile(r"([a-z][a-z0-9]*)\[([0-9,<= ]*)\](\{[^{}]*\})?")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")


@dataclasses.dataclass(frozen=True)
class Array:
    """A shape as it lies in memory.

    Attributes:
      dtype: XLA's name, like "bf16".
      shape: the array's shape.
      space: memory space; 0 is HBM, 1 a TPU core's own memory.
    """

    dtype: str
    shape: tuple[int, ...]
    space: int = 0

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes without the padding that tiles add."""
        bits = _BITS[self.dtype] if self.dtype in _BITS else int(re.search(r"\d+", self.dtype)[0])
        return (self.size * bits + 7) // 8

    @property
    def traffic(self) -> int:
        """Bytes in HBM; 0 for an array elsewhere."""
        return 0 if self.space else self.bytes


@dataclasses.dataclass(frozen=True, eq=False)
class Instruction:
    """One line of a computation; `arrays` are its results, `computations` all of the module by name."""

    name: str
    opcode: str
    arrays: tuple[Array, ...]
    operands: tuple[Instruction, ...]
    attributes: str
    literal: str
    is_root: bool
    computations: dict[str, Computation] = dataclasses.field(repr=False)

    @property
    def out(self) -> Array:
        """The result of an instruction that has one."""
        return self.arrays[0]

    @property
    def inputs(self) -> list[Array]:
        """The arrays of all operands."""
        return [array for operand in self.operands for array in operand.arrays]

    def called(self, *kinds: str) -> list[Computation]:
        """The computations under these attributes."""
        names = ",".join(self.find(rf"\b{kind}=(\{{[^}}]*\}}|%?[\w.\-]+)").strip("{}") for kind in kinds)
        return [self.computations[name.strip(" %")] for name in names.split(",") if name]

    def find(self, pattern: str) -> str:
        """The group of the first match of a regular expression in the attributes; "" if there is none."""
        match = re.search(pattern, self.attributes)
        return match[1] if match else ""

    @functools.cached_property
    def source(self) -> str:
        """The instruction's place in the Python program, as JAX names it."""
        return self.find(r'op_name="([^"]*)"') or self.opcode


@dataclasses.dataclass(frozen=True, eq=False)
class Computation:
    """Instructions in order, each after its operands."""

    instructions: tuple[Instruction, ...]

    @functools.cached_property
    def root(self) -> Instruction:
        """The instruction whose result the computation returns."""
        return next(i for i in self.instructions if i.is_root)

    @functools.cached_property
    def parameters(self) -> dict[int, Instruction]:
        """The parameters by number."""
        return {int(i.literal): i for i in self.instructions if i.opcode == "parameter"}

    @functools.cached_property
    def users(self) -> dict[Instruction, list[Instruction]]:
        """The instructions that read each instruction's result."""
        users: dict[Instruction, list[Instruction]] = {it: [] for it in self.instructions}
        for instruction in self.instructions:
            for operand in set(instruction.operands):
                users[operand].append(instruction)
        return users


@dataclasses.dataclass(frozen=True)
class Module:
    """A program: the computation that it begins with, and the number of devices it is split over."""

    entry: Computation
    partitions: int


def parse(text: str) -> Module:
    """Parses the text of `compiled.as_text()`, the program that each device runs.

    Raises:
      ValueError: if the text is no HLO.
    """
    computations, entry, lines, name = {}, None, [], None
    for line in text.splitlines():
        if name is None:
            if (header := _HEADER.match(line)) and not line.startswith("HloModule"):
                name, lines = header[2], []
                entry = name if header[1] else entry
        elif line == "}":
            found: dict[str, Instruction] = {}
            for match in map(_LINE.match, lines):
                found[match[2]] = _instruction(match[2], match[3], bool(match[1]), found, computations)
            computations[name], name = Computation(tuple(found.values())), None
        elif _LINE.match(line):
            lines.append(line)
        else:  # an attribute with line breaks in it, as kernels have
            lines[-1] += line
    if entry is None:
        raise ValueError("no ENTRY computation: this is not the text of a compiled program")
    partitions = re.search(r"num_partitions=(\d+)", text.partition("\n")[0])
    return Module(computations[entry], int(partitions[1]) if partitions else 1)


def _instruction(
    name: str, text: str, is_root: bool, before: dict[str, Instruction], computations: dict[str, Computation]
) -> Instruction:
    end = _closing(text, 0) + 1 if text.startswith("(") else text.index(" ")
    shape, rest = text[:end], text[end:].lstrip()
    opcode, _, _ = rest.partition("(")
    close = _closing(rest, len(opcode))
    inner = rest[len(opcode) + 1 : close]
    operands = tuple(before[operand] for operand in re.findall(r"%([\w.\-]+)", inner) if opcode != "constant")
    arrays = tuple(_array(match) for match in _ARRAY.finditer(re.sub(r"/\*.*?\*/", "", shape)))
    return Instruction(name, opcode.strip(), arrays, operands, rest[close + 1 :], inner, is_root, computations)


def _closing(text: str, start: int) -> int:
    """Position at which the bracket opened at `start` closes."""
    depth = 0
    for index in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[index], 0)
        if depth == 0:
            return index
    raise ValueError(f"unbalanced brackets: {text[:80]}")


def _array(match: re.Match[str]) -> Array:
    sides = tuple(int(side.strip(" <=")) for side in match[2].split(",") if side.strip())
    space = re.search(r"S\((\d+)\)", match[3] or "")
    return Array(match[1], sides, int(space[1]) if space else 0)
