"""A report on a data set, in lines for people: its splits, pictures per class, and damaged pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from var_jax.data.damage import BAD_SHARE
from var_jax.data.sources import NO_CLASS, SPLITS, TOKENS, Source, make_source
from var_jax.errors import InputError, printable

_CLASSES_IN_FULL = 40  # a data set with more classes is summarised


def report(kind: str, read: bool, **options: Any) -> Iterator[str]:
    """Lines about both splits of a data set, see `make_source`; with `read`, of which every picture was read.

    Raises:
      InputError: if the data set cannot be used, or `read` found more damaged pictures than training allows.
    """
    yield from map(printable, _lines(kind, read, options))


def notes(*sources: Source) -> list[str]:
    """Lines about what the splits of a data set leave aside, and about names of classes that mislead; each once."""
    lines = [line for source in sources for line in (*getattr(source, "notes", ()), *_name_notes(source.class_names))]
    return list(dict.fromkeys(map(printable, lines)))


def _lines(kind: str, read: bool, options: dict[str, Any]) -> Iterator[str]:
    sources = []
    for split in SPLITS:
        source = make_source(kind, split, **options)
        yield f"{split}: {len(source)} pictures in {len(source.class_names)} classes"
        if kind != "tfds" or read:
            yield from _class_lines(source)
        if read:
            yield from _damage_lines(source, split)
        sources.append(source)
    yield from notes(*sources)
    if kind == "tfds" and not read:
        yield "pictures per class: only by reading everything, add --read"


def _name_notes(names: Sequence[str]) -> Iterator[str]:
    for label, name in enumerate(names):
        if name.strip().casefold() == NO_CLASS:
            yield f"class '{name}' is called by the word for no class: in text, like --classes, write its id {label}"
    moved = [label for label, name in enumerate(names) if name.isdecimal() and name.isascii() and name != str(label)]
    if moved:
        label = moved[0]
        yield (
            f"class '{names[label]}' has the id {label}, as ids follow the alphabet: in text, like --classes, a number "
            "is a name where there is one; in Python it is an id"
        )


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
