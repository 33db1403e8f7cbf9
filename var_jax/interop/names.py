"""Name tables: pair the tensors of a reference checkpoint with our parameters, both ways.

A table is a list of `Entry`s made from a config. Reading and writing go through the same table, so
they cannot disagree: every tensor of the file must be named by exactly one entry, every parameter
must be filled exactly once, and every shape is checked before anything is moved.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from var_jax.errors import InputError
from var_jax.models.parameters import Params, Path, flatten, unflatten

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Layout:
    """The difference between a tensor's axes in the reference (PyTorch) and here.

    Attributes:
      joined: our shape -> the same, with axes joined where the reference has a single one.
      first: the axes that come first in the reference, in its order.
      ones: positions of further axes in the reference, of size 1.
    """

    joined: Callable[[Shape], Shape] = tuple
    first: tuple[int, ...] = ()
    ones: tuple[int, ...] = ()

    def to_reference(self, array: np.ndarray) -> np.ndarray:
        """Our array as the reference has it."""
        array = np.moveaxis(array.reshape(self.joined(array.shape)), self.first, range(len(self.first)))
        return np.expand_dims(array, self.ones)

    def to_ours(self, array: np.ndarray, shape: Shape) -> np.ndarray:
        """The reference's array as ours, of this shape."""
        return np.moveaxis(array.squeeze(self.ones), range(len(self.first)), self.first).reshape(shape)

    def reference_shape(self, shape: Shape) -> Shape:
        """The shape that an array of ours has in the reference."""
        return self.to_reference(np.broadcast_to(np.float32(0), shape)).shape  # one number, whatever the shape


def reshaped(*ones: int) -> Layout:
    """A layout with the same order of numbers; the reference has size-1 axes at the positions `ones`."""
    return Layout(ones=ones)


SAME = Layout()
FLAT = Layout(lambda shape: (math.prod(shape),))  # ours has several axes, [3, C] or [H, K]
CONV = Layout(first=(3, 2))  # ours HWIO, the reference's OIHW
LINEAR = Layout(lambda s: (s[0], math.prod(s[1:])), first=(1,))  # ours [in, ...out], the reference's [out, in]
POINTWISE = dataclasses.replace(LINEAR, ones=(2, 3))  # as LINEAR, but a 1x1 convolution in the reference
LINEAR_FROM_HEADS = Layout(lambda s: (math.prod(s[:-1]), s[-1]), first=(1,))  # ours [...in, out]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One tensor of the reference and its parameter here (or its layer `index` of a stacked parameter)."""

    reference: str
    path: tuple[str, ...]
    layout: Layout = SAME
    index: int | None = None


def select(tensors: Mapping[str, np.ndarray], landmark: str, what: str, file: str) -> dict[str, np.ndarray]:
    """Selects the tensors of one network in a file that may hold several under prefixes, and removes the prefix.

    `landmark` is a name that every checkpoint of this network has. Training checkpoints nest networks
    ("trainer.vae_local.encoder..."); a plain state dict is returned as it is.
    """
    prefixes = {name[: -len(landmark)] for name in tensors if name == landmark or name.endswith("." + landmark)}
    if not prefixes:
        raise InputError(f"{file}: not a checkpoint of a {what}, it has no tensor '{landmark}'")
    if len(prefixes) > 1:
        listed = ", ".join(f"'{prefix}'" for prefix in sorted(prefixes))
        one = max(prefixes, key=lambda prefix: ("ema" in prefix, prefix)).removesuffix(".")
        raise InputError(f"{file}: holds more than one {what} (under {listed}): choose one, like --prefix {one}")
    prefix = prefixes.pop()
    return {name[len(prefix) :]: array for name, array in tensors.items() if name.startswith(prefix)}


def under(tensors: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The tensors whose names begin with `prefix` and a dot, by the rest of their names."""
    start = prefix.removesuffix(".") + "."
    return {name.removeprefix(start): array for name, array in tensors.items() if name.startswith(start)}


def shape_of(tensors: Mapping[str, np.ndarray], name: str, rank: int, file: str) -> Shape:
    """The shape of a tensor that a config is inferred from.

    Raises:
      InputError: if the tensor is missing or has another number of axes.
    """
    if name not in tensors:
        raise InputError(f"{file}: tensor '{name}' is missing (is the file complete, and of this kind of model?)")
    if tensors[name].ndim != rank:
        raise InputError(f"{file}: tensor '{name}' has shape {tensors[name].shape}, expected {rank} axes")
    return tensors[name].shape


def to_params(
    table: list[Entry], tensors: Mapping[str, np.ndarray], abstract: Params, skipped: Iterable[str], file: str
) -> Params:
    """Turns reference tensors into our parameters, float32.

    Args:
      table: the entries.
      tensors: the file's tensors under the reference's names.
      abstract: our parameter tree, leaves with `.shape`.
      skipped: names of tensors that hold nothing learned and may be absent.
      file: the file's name in errors.

    Raises:
      InputError: naming the first tensor that is missing, unknown, mis-shaped or not of finite floating-point numbers.
    """
    leaves = flatten(abstract)
    _check_coverage(table, leaves)
    named = {entry.reference for entry in table}
    if missing := next((entry.reference for entry in table if entry.reference not in tensors), None):
        raise InputError(f"{file}: tensor '{missing}' is missing (is the file complete, and of this kind of model?)")
    if extra := sorted(set(tensors) - named - set(skipped)):
        raise InputError(f"{file}: tensor '{extra[0]}' has no place in this model ({len(extra)} such tensors)")
    flat: dict[tuple[str, ...], np.ndarray] = {}
    for entry in table:
        shape = leaves[entry.path].shape
        part = shape if entry.index is None else shape[1:]
        array, expected = tensors[entry.reference], entry.layout.reference_shape(part)
        if array.shape != expected:
            raise InputError(f"{file}: tensor '{entry.reference}' has shape {array.shape}, expected {expected}")
        if not jnp.issubdtype(array.dtype, jnp.floating):  # numpy does not count bfloat16 as one
            raise InputError(f"{file}: tensor '{entry.reference}' holds {array.dtype}, expected floating-point numbers")
        with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite
            ours = np.asarray(entry.layout.to_ours(array, part), np.float32)
        require_finite(ours, entry.reference, file)
        if entry.index is None:
            flat[entry.path] = np.ascontiguousarray(ours)
        else:
            flat.setdefault(entry.path, np.empty(shape, np.float32))[entry.index] = ours
    return unflatten(flat)


def require_finite(array: np.ndarray, name: str, file: str) -> None:
    """Refuses a tensor with NaN or infinity, by name: such weights draw nothing."""
    if not np.isfinite(array).all():
        raise InputError(f"{file}: tensor '{name}' holds NaN or infinity; take another checkpoint, or export it again")


def to_reference(table: list[Entry], params: Params) -> dict[str, np.ndarray]:
    """Turns our parameters into tensors under the reference's names, in the table's order."""
    leaves, tensors = flatten(params), {}
    _check_coverage(table, leaves)
    for entry in table:
        leaf = np.asarray(leaves[entry.path])
        part = leaf if entry.index is None else leaf[entry.index]
        tensors[entry.reference] = np.ascontiguousarray(entry.layout.to_reference(part))
    return tensors


def _check_coverage(table: list[Entry], leaves: Mapping[Path, Any]) -> None:
    """Checks that the table fills every parameter exactly once; anything else is a bug here, not bad input."""
    filled = collections.Counter((entry.path, entry.index) for entry in table)
    needed = collections.Counter()
    for path, leaf in leaves.items():
        stacked = any(entry.path == path and entry.index is not None for entry in table)
        needed.update((path, index) for index in (range(leaf.shape[0]) if stacked else (None,)))
    if odd := sorted(map(repr, (filled - needed) + (needed - filled))):
        raise AssertionError(f"name table and parameters disagree at {odd[:3]}")
    if len({entry.reference for entry in table}) != len(table):
        raise AssertionError("name table names a reference tensor twice")
