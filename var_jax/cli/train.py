"""`var-jax train`: either stage, from a config by name or file."""

from __future__ import annotations

import argparse

from var_jax.cli.process_options import add_process_options, joined
from var_jax.training.config import load_config
from var_jax.training.loop import train

TAKES_OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, metavar="NAME|FILE", help="a config of the package, or a .py file")
    parser.add_argument("--workdir", required=True, metavar="DIR", help="where the run lives; the same again resumes")
    window = "steps that the profiler looks at, such as 20:25; then: xprof WORKDIR/profile (pip install xprof)"
    parser.add_argument("--profile", metavar="FIRST:LAST", help=window)
    add_process_options(parser)
    parser.epilog = "Single keys of the config are changed by --config.key=value."


def run(args: argparse.Namespace) -> int:
    config = load_config(args.config, args.overrides)
    with joined(args, saves=True):
        code = train(config, args.workdir, args.profile)
    return code
