"""A report on a data set, in lines for people: its splits, pictures per class, and damaged pictures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from var_jax.data.damage import BAD_SHARE
from var_jax.data.sources import SPLITS, TOKENS, Source, make_source
from var_jax.errors import InputError

_CLASSES_IN_FULL = 40  # a data set with more classes is summarised


def report(kind: str, read: bool, **options: Any) -> Iterator[str]:
    """Lines about both splits of a data set, see `make_source`; with `read`, of which every picture was read.

    Raises:
      InputError: if the data set cannot be used, or `read` found more damaged pictures than training allows.
    """
    for split in SPLITS:
        source = make_source(kind, split, **options)
        yield f"{split}: {len(source)} pictures in {len(source.class_names)} classes"
        if kind != "tfds" or read:
            yield from _class_lines(source)
        if read:
            yield from _damage_lines(source, split)
    if kind == "tfds" and not read:
        yield "pictures per class: only by reading everything, add --read"


def _class_lines(source: Source) -> Iterator[str]:
    counts = np.bincount(source.labels(), minlength=len(source.class_names))
    if len(counts) <= _CLASSES_IN_FULL:
        width = max(map(len, source.class_names))
        for name, count in zip(source.class_names, counts, strict=True):
            yield f"  {name:<{width}}  {count}"
        return
    few, many = (f"{source.class_names[i]} has {counts[i]}" for i in (counts.argmin(), counts.argmax()))
    yield f"  {np.median(counts):.0f} pictures per class in the median; fewest: {few}, most: {many}"


def _damage_lines(source: Source, split: str) -> Iterator[str]:
    """Lines naming every damaged picture; too many of them, or one in a store of tokens, are an error."""
    damaged = []
    for index in range(len(source)):
        try:
            source[index]
        except InputError as error:
            if source.holds == TOKENS:
                raise
            damaged.append(error)
            yield f"{split} picture {index}: {error}"
    if len(damaged) > BAD_SHARE * len(source):
        more = f" (and {len(damaged) - 1} more)" if len(damaged) > 1 else ""
        raise InputError(f"{damaged[0]}{more}; repair or remove the damaged pictures")
    left = f"{len(damaged)} of {len(source)} pictures cannot be read and will be left out"
    yield f"{split}: {left if damaged else 'every picture can be read'}"
