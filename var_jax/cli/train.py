"""`var-jax train`: either stage, from a config by name or file."""

from __future__ import annotations

import argparse

from var_jax.training.config import load_config
from var_jax.training.loop import train

TAKES_OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, metavar="NAME|FILE", help="a config of the package, or a .py file")
    parser.add_argument("--workdir", required=True, metavar="DIR", help="where the run lives; the same again resumes")
    parser.epilog = "Single keys of the config are changed by --config.key=value."


def run(args: argparse.Namespace) -> int:
    return train(load_config(args.config, args.overrides), args.workdir)
