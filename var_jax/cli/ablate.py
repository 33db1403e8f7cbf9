"""`var-jax ablate`: trains the rows of an ablation, judges them, and prints the table."""

from __future__ import annotations

import argparse

from var_jax.cli.options import say
from var_jax.scaling.ablation import ablate

TAKES_OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ablation", metavar="ABLATION", help="a config with rows: ablation, or a .py file")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of all results; the same command resumes")
    parser.add_argument("--seeds", type=int, default=2, help="trainings per row (default 2)")
    parser.add_argument("--samples", type=int, default=500, help="pictures drawn from each model (default 500)")
    parser.epilog = "--config.key=value changes a key in every transformer's config."


def run(args: argparse.Namespace) -> None:
    say(ablate(args.ablation, args.out, args.seeds, args.samples, args.overrides, say))
