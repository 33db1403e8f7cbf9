"""Parameter trees: nested dicts of arrays, and the same arrays by path."""

from __future__ import annotations

from typing import Any

from flax import traverse_util

Params = dict[str, Any]
Path = tuple[str, ...]


def flatten(tree: Params) -> dict[Path, Any]:
    """The leaves of a nested dict by path, in sorted order."""
    return dict(sorted(traverse_util.flatten_dict(tree).items()))


def unflatten(flat: dict[Path, Any]) -> Params:
    """Inverse of `flatten`."""
    return traverse_util.unflatten_dict(flat)
