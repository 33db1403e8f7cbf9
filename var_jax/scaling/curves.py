"""Tables of training curves: final values, the best at each number of tokens, and the best at each compute, C_min.

A table is a CSV file with one line per evaluation: model, n (parameters), tokens, flops, loss, error, and any further
columns whose names begin with loss or error (loss_last, error_last, loss_0 of the coarsest scale ...). A model with
one line is a curve of one point, which is enough for laws over n.
"""

from __future__ import annotations

import csv
import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from var_jax.errors import InputError
from var_jax.formats.atomic import atomic_file

REQUIRED = ("model", "n", "tokens", "flops", "loss", "error")
_FRONT_POINTS = 400


@dataclasses.dataclass(frozen=True)
class Curve:
    """One model's evaluations in the order of training.

    Attributes:
      model: the model's name.
      n: parameters that the law counts.
      tokens, flops: [T] tokens and operations of training until each evaluation.
      figures: [T] values by the column's name.
    """

    model: str
    n: float
    tokens: np.ndarray
    flops: np.ndarray
    figures: dict[str, np.ndarray]

    def final(self, figure: str) -> float:
        """The figure at the last evaluation."""
        return float(self.figures[figure][-1])


@dataclasses.dataclass(frozen=True)
class Front:
    """The least that any model reaches by each number of tokens or operations.

    Attributes:
      x: [F] tokens or operations, evenly spaced in log.
      y: [F] the least value so far; never rises.
      owner: [F] index of the model that reaches the value first.
    """

    x: np.ndarray
    y: np.ndarray
    owner: np.ndarray

    def points(self) -> tuple[np.ndarray, np.ndarray]:
        """One point per model that owns an inner part of the front: the middle (in log) of that part.

        More points of one model would share its luck, and an interval that took them for independent would be too
        narrow. The parts at the ends are cut short by the range of sizes, so a model is not at its best in their
        middles, and laws through them would be biased.
        """
        inner = [one for one in dict.fromkeys(self.owner) if one not in (self.owner[0], self.owner[-1])]
        middles = np.array([np.mean(np.log(self.x[self.owner == one])) for one in inner])
        return np.exp(middles), np.exp(np.interp(middles, np.log(self.x), np.log(self.y)))


def front(curves: Sequence[Curve], figure: str, over: str) -> Front:
    """The Pareto front over all curves, each interpolated in log-log between its evaluations.

    Args:
      curves: curves of all models; those with a single evaluation are ignored.
      figure: the figure that falls.
      over: "flops" (C_min) or "tokens".

    Raises:
      InputError: if no curve has two evaluations.
    """
    known = [(np.log(getattr(c, over)), np.log(c.figures[figure])) for c in curves if len(c.tokens) > 1]
    if not known:
        raise InputError(f"no model has two evaluations: a front over {over} needs curves; train with evaluate_every")
    grid = np.linspace(min(x[0] for x, _ in known), max(x[-1] for x, _ in known), _FRONT_POINTS)
    values = np.stack([np.interp(grid, x, y, left=np.inf, right=np.inf) for x, y in known])
    owner, least = np.argmin(values, axis=0), np.min(values, axis=0)
    lowest = np.minimum.accumulate(least)
    falling = np.isfinite(least) & (least <= lowest)
    return Front(np.exp(grid[falling]), np.exp(least[falling]), owner[falling])


def read_table(path: str | os.PathLike[str]) -> list[Curve]:
    """Reads the curves of a CSV file, ordered by number of parameters.

    Raises:
      InputError: naming the missing column, or the invalid line.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            columns, rows = reader.fieldnames or [], list(reader)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a table ({type(error).__name__}: {error})") from None
    if missing := [name for name in REQUIRED if name not in columns]:
        raise InputError(f"{path}: has no column '{missing[0]}'; expected {', '.join(REQUIRED)} in its first line")
    if not rows:
        raise InputError(f"{path}: has no line below the names of the columns; give one per evaluation")
    figures = [name for name in columns if name.startswith(("loss", "error"))]
    numbers = [_numbers(path, line, row, ("n", "tokens", "flops", *figures)) for line, row in enumerate(rows, 2)]
    return curves_of([{"model": row["model"], **found} for row, found in zip(rows, numbers, strict=True)])


def _numbers(path: str | os.PathLike[str], line: int, row: dict[str, str], names: Sequence[str]) -> dict[str, float]:
    found = {}
    for name in names:
        try:
            found[name] = float(row[name] or "nan") if name not in REQUIRED else float(row[name])
        except (TypeError, ValueError):
            raise InputError(f"{path}, line {line}: {name} is {row[name]!r}, expected a number") from None
        if name in REQUIRED and not (math.isfinite(found[name]) and found[name] > 0):
            raise InputError(f"{path}, line {line}: {name} is {row[name]}, expected a number above 0; leave it out")
    return found


def curves_of(rows: Sequence[dict[str, object]]) -> list[Curve]:
    """Makes one curve per model from a table's rows, smallest model first; figures that a row lacks are nan.

    Raises:
      InputError: if a model's rows do not agree on n.
    """
    models: dict[str, list[dict[str, object]]] = {}
    for row in rows:
        models.setdefault(str(row["model"]), []).append(row)
    curves = []
    for model, own in models.items():
        own.sort(key=lambda row: row["tokens"])
        if len({row["n"] for row in own}) > 1:
            raise InputError(f"model '{model}': its lines have several n; give every size a name of its own")
        names = [name for name in own[0] if name.startswith(("loss", "error"))]
        column = lambda name, own=own: np.array([row.get(name, math.nan) for row in own], np.float64)
        figures = {name: column(name) for name in names}
        curves.append(Curve(model, float(own[0]["n"]), column("tokens"), column("flops"), figures))
    return sorted(curves, key=lambda curve: (curve.n, curve.model))


def write_table(path: str | os.PathLike[str], rows: Sequence[dict[str, object]]) -> None:
    """Writes rows as a CSV file, with every column that any row has."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_file(Path(path)) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
