"""The `var-jax scaling` commands: from parsed arguments to the files they write."""

from __future__ import annotations

import argparse
import functools
import json
from pathlib import Path

from var_jax.errors import InputError
from var_jax.formats.atomic import atomic_file, local_target
from var_jax.scaling import cost as costs
from var_jax.scaling.curves import curves_of, read_table, write_table
from var_jax.scaling.gather import Row, gather
from var_jax.scaling.laws import SHOWN, all_laws, lines, markdown, parse_irreducible
from var_jax.scaling.plot import draw_over_flops, draw_over_n, new_figure
from var_jax.scaling.sweep import run_sweep, write_jobs

_say = functools.partial(print, flush=True)


def run(args: argparse.Namespace) -> int:
    """`scaling run`: trains a sweep, or writes its jobs."""
    only = [name for name in args.only.split(",") if name]
    if args.write_jobs:
        for file in write_jobs(args.sweep, args.out, args.write_jobs, args.overrides, only):
            _say(str(file))
        return 0
    return run_sweep(args.sweep, args.out, args.overrides, only, _say)


def table(args: argparse.Namespace) -> None:
    """`scaling table`: writes one CSV file."""
    _no_overrides(args)
    rows = _gathered(args.runs)
    write_table(args.out, rows)
    _say(f"{args.out}: {len(rows)} evaluations of {len({row['model'] for row in rows})} models")


def fit(args: argparse.Namespace) -> None:
    """`scaling fit`: writes laws as JSON, CSV and two figures."""
    _no_overrides(args)
    if bool(args.runs) == bool(args.table):
        raise InputError("scaling fit: give run directories, or --table FILE")
    new_figure()  # a missing library is found before the work
    if args.table:
        rows, curves = None, read_table(args.table)
    else:
        rows = _gathered(args.runs)
        curves = curves_of(rows)
    figures = list(curves[0].figures)
    irreducible = parse_irreducible(args.irreducible, figures)
    ordered = {name: irreducible[name] for name in (*SHOWN, *figures) if name in irreducible}
    laws = all_laws(curves, ordered, args.seed)
    out = local_target(args.out)
    content = {"irreducible": args.irreducible, "models": [curve.model for curve in curves]}
    content["figures"] = {own.figure: own.to_dict() for own in laws}
    with atomic_file(out / "scaling.json") as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")
    if rows is not None:
        write_table(out / "table.csv", rows)
    else:
        with atomic_file(out / "table.csv") as temporary:
            temporary.write_bytes(Path(args.table).read_bytes())
    with atomic_file(out / "laws.md") as temporary:
        temporary.write_text(markdown([own for own in laws if own.figure in SHOWN], curves))
    draw_over_n(out / "over_parameters.png", laws)
    draw_over_flops(out / "over_compute.png", laws, curves)
    for line in lines([own for own in laws if own.figure in SHOWN]):
        _say(line)
    _say(f"{out}: scaling.json, laws.md, table.csv, over_parameters.png, over_compute.png")


def cost(args: argparse.Namespace) -> None:
    """`scaling cost`: compares raster order with scale by scale."""
    _no_overrides(args)
    costs.report(args.out, args.sides, args.width, args.depth, args.batch, args.seconds, _say)


def _gathered(runs: list[str]) -> list[Row]:
    rows, left_out = gather(runs)
    for line in left_out:
        _say(f"left out: {line}")
    if not rows:
        raise InputError(f"{', '.join(runs)}: no finished model among them")
    return rows


def _no_overrides(args: argparse.Namespace) -> None:
    if args.overrides:
        raise InputError(f"'{args.overrides[0]}': only scaling run takes keys of configs")
