"""`var-jax train`: trains either stage from a config, by name or file."""

from __future__ import annotations

import argparse

from var_jax.cli.options import add_process_options, joined
from var_jax.training.config import load_config
from var_jax.training.loop import train

TAKES_OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, metavar="NAME|FILE", help="a config of the package, or a .py file")
    parser.add_argument("--workdir", required=True, metavar="DIR", help="the run's folder; the same command resumes")
    window = "steps to profile, such as 20:25; then: xprof WORKDIR/profile (pip install xprof)"
    parser.add_argument("--profile", metavar="FIRST:LAST", help=window)
    add_process_options(parser)
    parser.epilog = "--config.key=value changes single keys of the config."


def run(args: argparse.Namespace) -> int:
    config = load_config(args.config, args.overrides)
    with joined(args, saves=True):
        return train(config, args.workdir, args.profile, ends_process=True)
