"""The options that say which data set a command reads, as in a config's `data`."""

from __future__ import annotations

import argparse
from typing import Any

_NAMES = ("path", "name", "data_dir", "validation_share", "seed", "size", "count", "variety")


def add_data_options(parser: argparse.ArgumentParser, kinds: str, required: bool = True) -> None:
    """Adds --kind, which has to be given if it is `required`, and the options of every kind."""
    parser.add_argument("--kind", required=required, help=kinds)
    options = parser.add_argument_group("options of the kind, as in a config")
    options.add_argument("--path", metavar="DIR", help="folder: where its class folders are; tokens: the store")
    options.add_argument("--name", help="tfds: its name")
    options.add_argument("--data-dir", metavar="DIR", help="tfds: where it was prepared")
    options.add_argument("--validation-share", type=float, help="folder, tfds: share of pictures to validate with")
    options.add_argument("--seed", type=int, help="shapes, folder")
    options.add_argument("--size", type=int, help="shapes: side of the pictures")
    options.add_argument("--count", type=int, help="shapes: number of pictures")
    options.add_argument("--variety", type=float, help="shapes: above 0, at most 1")


def data_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options that were given, for `make_source`."""
    return {name: getattr(args, name) for name in _NAMES if getattr(args, name) is not None}
