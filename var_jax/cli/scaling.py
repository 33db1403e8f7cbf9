"""`var-jax scaling`: trains a sweep of sizes, gathers its table, fits the laws, measures the cost of sampling."""

from __future__ import annotations

import argparse
from pathlib import Path

from var_jax.cli.options import say
from var_jax.errors import InputError
from var_jax.formats.atomic import atomic_file, local_target, write_json
from var_jax.scaling.cost import report
from var_jax.scaling.curves import curves_of, read_table, write_table
from var_jax.scaling.gather import Row, gather
from var_jax.scaling.laws import SHOWN, all_laws, lines, markdown, parse_irreducible
from var_jax.scaling.plot import draw_over_flops, draw_over_n, new_figure
from var_jax.scaling.sweep import run_sweep, write_jobs

TAKES_OVERRIDES = True
_RUNS = "training directories, or folders of them"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    run = verbs.add_parser("run", help="train every model of a sweep, one after another; the same command resumes")
    run.add_argument("sweep", metavar="SWEEP", help="a config with a sweep: scaling, scaling:shapes, or a .py file")
    run.add_argument("--out", required=True, metavar="DIR", help="folder of the models' directories")
    run.add_argument("--only", default="", metavar="NAMES", help="some of the models: names separated by commas")
    run.add_argument("--write-jobs", metavar="DIR", help="train nothing, write one shell script per model here")
    run.epilog = "--config.key=value changes a key in every model's config."
    table = verbs.add_parser("table", help="one CSV file of the evaluations of finished runs")
    table.add_argument("runs", nargs="+", metavar="RUNS", help=_RUNS)
    table.add_argument("--out", required=True, metavar="FILE", help="the CSV file")
    fit = verbs.add_parser("fit", help="power laws over parameters, tokens and compute: JSON, CSV, two figures")
    fit.add_argument("runs", nargs="*", metavar="RUNS", help=_RUNS)
    fit.add_argument("--table", metavar="FILE", help="instead of runs, a CSV file: model,n,tokens,flops,loss,error,...")
    fit.add_argument("--out", required=True, metavar="DIR", help="scaling.json, laws.md, table.csv, two figures")
    fit.add_argument(
        "--irreducible",
        default="none",
        metavar="none|fitted|FIGURE=VALUE,...",
        help="the floor of every model: none, fitted jointly, or given, like loss=5.0,loss_last=4.5",
    )
    fit.add_argument("--seed", type=int, default=0, help="seed of the bootstrap (default 0)")
    cost = verbs.add_parser("cost", help="raster order against scale by scale: steps, FLOPs, seconds")
    cost.add_argument("--out", required=True, metavar="DIR", help="cost.json, cost.md and a figure")
    cost.add_argument("--width", type=int, default=64, help="width of the measured models (default 64)")
    cost.add_argument("--depth", type=int, default=2, help="depth of the measured models (default 2)")
    cost.add_argument("--batch", type=int, default=16, help="the large batch that is timed (default 16)")
    cost.add_argument("--sides", default="256,512,1024", help="picture sides (default 256,512,1024)")
    cost.add_argument("--seconds", type=float, default=900, help="time budget; timings beyond it are skipped")


def run(args: argparse.Namespace) -> int | None:
    if args.overrides and args.verb != "run":
        raise InputError(f"'{args.overrides[0]}': only scaling run takes keys of configs")
    return {"run": _run, "table": _table, "fit": _fit, "cost": _cost}[args.verb](args)


def _run(args: argparse.Namespace) -> int:
    """Trains a sweep, or writes its jobs."""
    only = [name for name in args.only.split(",") if name]
    if args.write_jobs:
        for file in write_jobs(args.sweep, args.out, args.write_jobs, args.overrides, only):
            say(str(file))
        return 0
    return run_sweep(args.sweep, args.out, args.overrides, only, say)


def _table(args: argparse.Namespace) -> None:
    """Writes one CSV file."""
    rows = _gathered(args.runs)
    write_table(args.out, rows)
    say(f"{args.out}: {len(rows)} evaluations of {len({row['model'] for row in rows})} models")


def _fit(args: argparse.Namespace) -> None:
    """Writes laws as JSON, CSV and two figures."""
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
    write_json(out / "scaling.json", content, indent=1)
    if rows is not None:
        write_table(out / "table.csv", rows)
    else:
        with atomic_file(out / "table.csv") as temporary:
            temporary.write_bytes(Path(args.table).read_bytes())
    shown = [own for own in laws if own.figure in SHOWN]
    with atomic_file(out / "laws.md") as temporary:
        temporary.write_text(markdown(shown, curves))
    draw_over_n(out / "over_parameters.png", laws)
    draw_over_flops(out / "over_compute.png", laws, curves)
    for line in lines(shown):
        say(line)
    say(f"{out}: scaling.json, laws.md, table.csv, over_parameters.png, over_compute.png")


def _cost(args: argparse.Namespace) -> None:
    """Compares raster order with scale by scale."""
    report(args.out, args.sides, args.width, args.depth, args.batch, args.seconds, say)


def _gathered(runs: list[str]) -> list[Row]:
    rows, left_out = gather(runs)
    for line in left_out:
        say(f"left out: {line}")
    if not rows:
        raise InputError(f"{', '.join(runs)}: no finished model among them")
    return rows
