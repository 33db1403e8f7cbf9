"""`var-jax scaling`: trains a sweep of sizes, gathers its table, fits the laws, measures the cost of sampling."""

from __future__ import annotations

import argparse

from var_jax.scaling import commands

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
    return getattr(commands, args.verb)(args)
