"""The data set that a run belongs to: classes, counts and fingerprints lie in the run's directory from its start."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import ml_collections
from etils import epath

from var_jax.data.sources import SPLITS, Source
from var_jax.errors import InputError, printable
from var_jax.formats.small_files import OBJECT, TEXTS, Kind, read_json, require_fields
from var_jax.training_directory import read_run

DATA_FILE = "data_set.json"
ALLOW = "allow"  # of the config's data.changed
_MOST = 6  # differences named
_PARTS = Kind(
    "numbers and fingerprints of pictures",
    lambda value: (
        type(value) is dict
        and all(type(part) is list and [type(each) for each in part] == [int, str] for part in value.values())
    ),
)
_REMEDY = "bring it back from a copy; without it a run takes the data set that it finds for its own"


def keep_data_set(
    workdir: epath.Path, config: ml_collections.ConfigDict, sources: Sequence[Source], say: Callable[[str], None]
) -> None:
    """Compares the data set with the one that the run in `workdir` was begun with, and writes it down.

    A run of a version that did not write it down is only compared by the class names that it knows.

    Raises:
      InputError: for other classes, and for other pictures unless `data.changed` allows them.
    """
    file, allowed = workdir / DATA_FILE, config.data.get("changed") == ALLOW
    now = {"class_names": list(sources[0].class_names)}
    now["pictures"] = {split: source.identity() for split, source in zip(SPLITS, sources, strict=True)}
    before = _before(file, workdir)
    if other := _other_classes(before.get("class_names", now["class_names"]), now["class_names"]):
        raise InputError(
            f"{workdir}: {other}: give the data set that it was begun with, or choose another --workdir for this one"
        )
    if lines := _other_pictures(before.get("pictures", now["pictures"]), now["pictures"]):
        listed = "; ".join(lines[:_MOST]) + f"; and {len(lines) - _MOST} more" * (len(lines) > _MOST)
        if not allowed:
            raise InputError(
                f"{workdir}: the data set is not as this run had it ({listed}): bring it back, or go on "
                f"with it, in another order of pictures, by --config.data.changed={ALLOW}"
            )
        say(f"the data set has changed, which --config.data.changed={ALLOW} allows: {listed}")
    if before.get("pictures") != now["pictures"]:
        temporary = workdir / f"{DATA_FILE}.tmp"
        temporary.write_text(json.dumps(now, indent=1) + "\n")
        temporary.replace(file)


def _before(file: epath.Path, workdir: epath.Path) -> dict[str, Any]:
    """The data set as written down; of an older version's run, the class names of a transformer at most."""
    if not file.exists():
        run = read_run(workdir)
        return {"class_names": run["class_names"]} if TEXTS.fits(run.get("class_names")) else {}
    found = read_json(file, "the data set of a run", _REMEDY)
    require_fields(found, file, {"class_names": TEXTS, "pictures": OBJECT}, _REMEDY)
    require_fields(found["pictures"], file, dict.fromkeys(SPLITS, _PARTS), _REMEDY)
    return found


def _other_classes(before: list[str], now: list[str]) -> str | None:
    """A phrase on other classes, or None."""
    if list(before) == list(now):
        return None
    new, gone = ([name for name in these if name not in set(those)] for these, those in ((now, before), (before, now)))
    found = [
        f"{word}: {printable(', '.join(names[:_MOST]))}" for word, names in (("new", new), ("gone", gone)) if names
    ]
    counted = f"the data set has {len(now)} classes, this run was begun with {len(before)}"
    return f"{counted} ({'; '.join(found) or 'the same in another order'})"


def _other_pictures(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """A line per class, or per split where its classes are not known, that has other pictures."""
    lines = []
    for split in SPLITS:
        for name in sorted({*before[split], *now[split]}):
            old, new = (tuple(found[split].get(name, (0, ""))) for found in (before, now))
            what = f"{split} pictures" + f" of class '{printable(name)}'" * bool(name)
            if old[0] != new[0]:
                lines.append(f"{new[0]} {what}, before {old[0]}")
            elif old != new:
                lines.append(f"{what} have other names or sizes")
    return lines
