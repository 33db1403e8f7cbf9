"""Sharding as data: (path pattern, axes) rules applied to the shapes of a whole training state.

A rule's pattern is searched in the path of a leaf ("params/blocks/qkv_kernel", and the same tail in the
optimizer's moments and the moving average); the first that matches decides. Its axes name a mesh
axis, or None, for every array axis from the first; axes that it leaves out are whole. No rule: replicated.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax

from var_jax.errors import InputError
from var_jax.parallel.mesh import BATCH_AXES

Axis = str | tuple[str, ...] | None
Rules = Sequence[tuple[str, Sequence[Axis]]]

# Activations of both models, and the transformer's kernels in use, by the names that they hand to `constrain`.
ACTIVATIONS: dict[str, tuple[Axis, ...]] = {
    "features": (BATCH_AXES, None, None, None),
    "sequence": (BATCH_AXES, None, None),
    "heads": (BATCH_AXES, None, "tensor", None),
    "hidden": (BATCH_AXES, None, "tensor"),
    "logits": (BATCH_AXES, None, "tensor"),
    # Kernels that are stored in parts are whole when they are used. Left to itself XLA sends the parts around and adds
    # up their products one by one, which moves every result through memory once per part.
    "qkv_kernel": (None, None, "tensor", None),
    "out_kernel": ("tensor", None, None),
    "mlp_in_kernel": (None, "tensor"),
    "mlp_out_kernel": ("tensor", None),
    "head_kernel": (None, "tensor"),
}


def shardings(mesh: jax.sharding.Mesh, rules: Rules, abstract: Any) -> Any:
    """A tree of NamedSharding for a tree of shapes.

    Raises:
      InputError: for a rule with more axes than the array, an axis the mesh lacks, or one that does
        not divide, naming rule, array and sizes.
    """

    def decide(path: Any, leaf: Any) -> jax.sharding.NamedSharding:
        name = path_name(path)
        axes = next((tuple(axes) for pattern, axes in rules if re.search(pattern, name)), ())
        if math.prod(leaf.shape) == 1:
            axes = ()
        _check(mesh, name, leaf.shape, axes)
        return jax.sharding.NamedSharding(mesh, jax.P(*axes))

    return jax.tree_util.tree_map_with_path(decide, abstract)


def placed(tree: Any, places: Any) -> Any:
    """Arrays or shapes as `jax.ShapeDtypeStruct`s with a sharding: one for all, or a tree of them."""
    if isinstance(places, jax.sharding.Sharding):
        places = jax.tree.map(lambda _: places, tree)
    return jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree, places)


def path_name(path: Any) -> str:
    """A leaf's path as names joined by slashes."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _check(mesh: jax.sharding.Mesh, name: str, shape: tuple[int, ...], axes: Sequence[Axis]) -> None:
    if len(axes) > len(shape):
        raise InputError(f"sharding of {name}: the rule has {len(axes)} axes, the array {len(shape)} {shape}")
    for axis, size in zip(axes, shape, strict=False):
        parts = 1
        for part in (axis,) if isinstance(axis, str) else axis or ():
            if part not in mesh.shape:
                raise InputError(f"sharding of {name}: mesh axis '{part}' is none of {', '.join(mesh.shape)}")
            parts *= mesh.shape[part]
        if size % parts:
            raise InputError(
                f"sharding of {name} {shape}: an axis of {size} does not divide over {axis} = {parts}; "
                "change the mesh, the width or the rule"
            )


def table(shapes: Any) -> str:
    """The shardings of `placed` shapes as text: one line per array, the largest first, with its size per device."""
    rows = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
        local = math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        spec = ", ".join("-" if axis is None else str(axis) for axis in leaf.sharding.spec) or "replicated"
        rows.append((local, path_name(path), str(tuple(leaf.shape)), spec))
    rows.sort(key=lambda row: -row[0])
    total = sum(row[0] for row in rows)
    widths = [max((len(row[i]) for row in rows), default=0) for i in (1, 2)]
    lines = [f"{n:{widths[0]}}  {s:{widths[1]}}  {b / 2**20:9.2f} MiB  {spec}" for b, n, s, spec in rows]
    return "\n".join([*lines, f"{total / 2**20:.1f} MiB per device in all"])


@dataclasses.dataclass(frozen=True)
class Constrain:
    """Constraints on activations by their names in `ACTIVATIONS`, on a mesh; hashable, so a module may carry it."""

    mesh: jax.sharding.Mesh

    def __call__(self, x: jax.Array, name: str) -> jax.Array:
        """x, constrained to the sharding that the rule for `name` gives; without a rule it is left alone."""
        if name not in ACTIVATIONS:
            return x
        return jax.lax.with_sharding_constraint(x, jax.sharding.NamedSharding(self.mesh, jax.P(*ACTIVATIONS[name])))


@dataclasses.dataclass(frozen=True)
class PerDevice:
    """Attention that every device computes for its own pictures and heads: for kernels that XLA cannot split.

    Hashable, so a module may carry it.

    Attributes:
      mesh: whose `data` and `fsdp` axes split the batch, and `tensor` the heads, as `ACTIVATIONS` has it.
      kernel: (q, k, v, mask) -> result, all [B, L, H, K] but the mask, which every device has whole.
    """

    mesh: jax.sharding.Mesh
    kernel: Callable[[jax.Array, jax.Array, jax.Array, Any], jax.Array]

    def __call__(self, q_BxLxHxK: jax.Array, k_BxLxHxK: jax.Array, v_BxLxHxK: jax.Array, mask_LxL: Any) -> jax.Array:
        """The result of `kernel`, split over the mesh like its arguments."""
        heads = jax.P(*ACTIVATIONS["heads"])
        local = lambda q, k, v: self.kernel(q, k, v, mask_LxL)
        # A kernel's result has no record of the axes it varies over, so there is nothing to check.
        split = jax.shard_map(local, mesh=self.mesh, in_specs=(heads,) * 3, out_specs=heads, check_vma=False)
        return split(q_BxLxHxK, k_BxLxHxK, v_BxLxHxK)
